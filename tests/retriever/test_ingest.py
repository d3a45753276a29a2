"""Only what changed is read and encoded, failures cost their own file only, and nothing goes that is still there."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from retriever.chunk import CONTEXT_TOKENS, ChunkSize
from retriever.encoders import Encoders
from retriever.errors import IndexMismatch, ModelError, SettingsError, StoreLocked
from retriever.fill import Maker, size_of
from retriever.index.embedded import EmbeddedGenerations
from retriever.ingest import Ingest, Outcome
from retriever.live import Live
from retriever.store import Store

SIZE = ChunkSize(20, 5)
LONG = "Der {} liegt im Hotel an der Bahn. Er hat {} Zimmer und {} Betten. Für den {} gilt eine Frist von {} Tagen. "


class Runs:
    """Runs over one folder of files, each with its outcomes."""

    def __init__(self, store: Store, folder: Path, fakes: ModuleType) -> None:
        self.store, self.index, self.files, self.fakes = store, folder / "index", folder / "files", fakes
        self.generations = EmbeddedGenerations(store, self.index)
        self.encoder = fakes.FakeEncoder()
        self.maker = Maker(self.encoder, SIZE)
        self.published = False
        self.files.mkdir()

    def write(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.files / f"{name}.txt").write_text(text)

    def __call__(self, *paths: Path, size: ChunkSize = SIZE, prune: bool = False, **others: Any) -> dict[str, str]:
        """Return each file's status by its name without ending."""
        self.outcomes: list[Outcome] = []
        self.found: list[list[str]] = []
        self.maker = Maker(self.encoder, size)
        ingest = Ingest(
            self.store,
            self.generations,
            self.maker,
            self.encoder.fingerprint,
            max_bytes=others.get("max_bytes", 100_000),
            timeout_s=20,
            prune=prune,
            on_outcome=self.outcomes.append,
            wait_s=others.get("wait_s", 0),
            on_found=lambda sources: self.found.append([Path(source).stem for source in sources]),
        )
        self.published = ingest.run(paths or [self.files])
        return {Path(outcome.source).stem: outcome.status for outcome in self.outcomes}

    def encoded(self) -> list[str]:
        """Return what was encoded since it was last asked for."""
        texts, self.encoder.encoded = self.encoder.encoded, []
        return texts

    def chunks(self) -> int:
        """Return how many the store holds in the chunking of the last run."""
        return self.store.count(self.store.revision(), self.maker.stamp.chunking)[1]

    def search(self, query: str, **options: Any) -> list[str]:
        live = Live(self.generations, self.fakes.encoders(self.encoder), alpha=0.5)
        return [Path(hit.source).stem for hit in live.searcher().search(query, mode="keyword", **options)]


@pytest.fixture
def runs(store: Store, tmp_path: Path, fakes: ModuleType) -> Runs:
    return Runs(store, tmp_path, fakes)


def long(name: str) -> str:
    # A first line short enough for a title: else the file's name would be in each chunk's context.
    return f"Akte {name}\n\n" + "".join(LONG.format(name, number, number + 1, name, number + 2) for number in range(10))


def test_a_first_run(runs: Runs) -> None:
    runs.write(a=long("Anker"), b=long("Balken"))
    assert runs() == {"a": "added", "b": "added"}
    assert runs.published
    assert [sorted(found) for found in runs.found] == [["a", "b"]]
    chunks = runs.chunks()
    assert sum(outcome.chunks for outcome in runs.outcomes) == chunks == len(runs.encoded()) > 10
    assert runs.search("Balken")[:1] == ["b"]


def test_a_folder_without_files(runs: Runs) -> None:
    assert runs() == {}
    assert runs.search("Balken") == []


def test_what_is_unchanged_is_skipped(runs: Runs) -> None:
    runs.write(a=long("Anker"), b=long("Balken"))
    runs()
    runs.encoded()
    (runs.files / "a.txt").touch()
    assert runs() == {"a": "unchanged", "b": "unchanged"}
    assert not runs.published
    assert runs.encoded() == []


def test_of_a_changed_file_only_new_chunks_are_encoded(runs: Runs) -> None:
    runs.write(a=long("Anker"), b=long("Balken"))
    runs()
    before = set(runs.encoded())
    runs.write(a=long("Anker").replace("5 Zimmer", "55 Zimmer"))
    assert runs() == {"a": "changed", "b": "unchanged"}
    assert runs.published
    new = runs.encoded()
    assert 1 <= len(new) <= 3  # the sentence's chunk, and neighbours that overlap it
    assert all("55 Zimmer" in text for text in new)
    assert not before & set(new)
    assert runs.search("55") == ["a"]
    assert len(runs.store.known()) == 2


def test_equal_files_share_their_vectors(runs: Runs) -> None:
    runs.write(a=long("Anker"), b=long("Anker"))
    assert runs() == {"a": "added", "b": "added"}
    texts = runs.encoded()
    assert len(texts) == len(set(texts)) == runs.chunks() / 2
    (runs.files / "a.txt").unlink()
    assert runs(prune=True) == {"b": "unchanged", "a": "removed"}
    assert runs.search("Anker") == ["b"] * len(runs.search("Anker")) != []


def test_a_file_that_moved_is_not_encoded_again(runs: Runs) -> None:
    runs.write(a=long("Anker"))
    runs()
    runs.encoded()
    (runs.files / "a.txt").rename(runs.files / "b.txt")
    assert runs(prune=True) == {"b": "added", "a": "removed"}
    assert runs.encoded() == []


def test_failures_are_reported_and_the_others_go_on(runs: Runs) -> None:
    runs.write(a=long("Anker"), empty="", big="x" * 5000, z=long("Zange"))
    (runs.files / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing")
    (runs.files / "image.png").write_bytes(b"\x89PNG")
    statuses = runs(runs.files, runs.files / "nowhere", max_bytes=4000)
    assert statuses == {
        "a": "added", "z": "added", "empty": "failed", "big": "failed", "broken": "failed", "image": "failed",
        "nowhere": "failed",
    }  # fmt: skip
    reasons = {Path(outcome.source).stem: outcome.reason for outcome in runs.outcomes if outcome.reason}
    assert reasons["empty"] == "the file is empty"
    assert "larger than 4,000 bytes" in reasons["big"]
    assert reasons["nowhere"] == "there is no such file or folder"
    assert [len(found) for found in runs.found] == [7]
    assert runs.search("Zange")[0] == "z"
    assert runs()["empty"] == "failed"


class TestPrune:
    def test_without_it_nothing_goes(self, runs: Runs) -> None:
        runs.write(a="Anker und Kette", b="Balken und Brett")
        runs()
        (runs.files / "a.txt").unlink()
        assert runs() == {"b": "unchanged"}
        assert runs.search("Anker") == ["a"]

    def test_only_below_the_given_folders(self, runs: Runs) -> None:
        for folder in ("one", "one-more", "two"):
            (runs.files / folder).mkdir()
            (runs.files / folder / f"{folder}.txt").write_text(f"Anker {folder}")
        (runs.files / "one" / "stays.txt").write_text("Anker bleibt")
        runs()
        for folder in ("one", "one-more", "two"):
            (runs.files / folder / f"{folder}.txt").unlink()
        assert runs(runs.files / "one", prune=True) == {"stays": "unchanged", "one": "removed"}
        assert sorted(runs.search("Anker")) == ["one-more", "stays", "two"]
        assert runs(prune=True) == {"stays": "unchanged", "one-more": "removed", "two": "removed"}

    def test_a_single_file_that_is_gone(self, runs: Runs) -> None:
        runs.write(a="Anker", b="Balken")
        runs()
        (runs.files / "a.txt").unlink()
        assert runs(runs.files / "a.txt", prune=True) == {"a": "removed"}
        assert runs.search("Balken") == ["b"]

    def test_a_file_that_fails_keeps_its_earlier_version(self, runs: Runs) -> None:
        runs.write(a="Anker und Kette", b="Balken und Brett")
        runs()
        runs.write(a="")
        assert runs(prune=True) == {"a": "failed", "b": "unchanged"}
        assert runs.search("Anker") == ["a"]
        runs.write(a="Axt")
        assert runs(prune=True) == {"a": "changed", "b": "unchanged"}
        assert runs.search("Anker") == []

    def test_a_file_that_is_only_not_looked_at_stays(self, runs: Runs) -> None:
        """Hidden files are indexed when they are named, and then skipped by the folder above."""
        (runs.files / ".notes.txt").write_text("Anker und Kette")
        assert runs(runs.files / ".notes.txt") == {".notes": "added"}
        assert runs(prune=True) == {}
        assert runs.search("Anker") == [".notes"]

    def test_what_a_broken_folder_hides_stays(self, runs: Runs) -> None:
        """As with a folder that this user may not list: it cannot be told what is gone."""
        folder = runs.files / "folder"
        folder.mkdir()
        (folder / "a.txt").write_text("Anker und Kette")
        runs()
        folder.rename(runs.files.parent / "elsewhere")
        folder.symlink_to(folder)  # a link to itself: every look at it fails
        assert runs(runs.files, prune=True) == {"folder": "failed"}
        assert runs(folder, prune=True) == {"folder": "failed"}
        assert runs.search("Anker") == ["a"]

    def test_a_removed_file_may_return(self, runs: Runs) -> None:
        runs.write(a="Anker", b="Balken")
        runs()
        (runs.files / "a.txt").unlink()
        runs(prune=True)
        assert runs.search("Anker") == []
        runs.write(a="Anker")
        assert runs() == {"a": "added", "b": "unchanged"}
        assert runs.search("Anker") == ["a"]


class TestSettingsThatChange:
    @pytest.mark.parametrize("what", ["size", "encoder"])
    def test_a_run_of_another_maker_than_the_live_index_is_refused(self, runs: Runs, what: str) -> None:
        """`beleg index` always uses the maker of the live index; this is for a rebuild that swaps just before the lock."""
        runs.write(a=long("Anker"))
        runs()
        before, live = runs.store.revision(), runs.generations.live()
        runs.write(a=long("Axt"))
        encoder = runs.encoder
        if what == "encoder":
            runs.encoder = runs.fakes.FakeEncoder(fingerprint="fake-2")
        with pytest.raises(IndexMismatch, match=r"made by another encoder or chunker.*again"):
            runs(size=ChunkSize(40, 5) if what == "size" else SIZE)
        assert (runs.store.revision(), runs.generations.live()) == (before, live)
        assert runs.outcomes == []
        runs.encoder = encoder
        assert runs.search("Anker")[0] == "a"

    def test_the_maker_of_the_live_index_goes_on(self, runs: Runs) -> None:
        """Whatever the settings say by now: encoder and size can be had from the generation."""
        runs.write(a=long("Anker"), b=long("Balken"))
        runs()
        live = runs.generations.live()
        assert live is not None
        assert (live.encoder, live.stamp, size_of(live)) == ("fake-1", runs.maker.stamp, SIZE)
        runs.encoded()
        runs.write(a=long("Axt"))
        assert runs(size=size_of(live)) == {"a": "changed", "b": "unchanged"}
        assert runs.search("Axt")[0] == "a"
        assert not any("Balken" in text for text in runs.encoded())

    def test_an_index_of_an_encoder_that_is_not_here_is_refused(self, runs: Runs) -> None:
        runs.write(a="Anker")
        runs()

        def open_(reference: str) -> Any:
            if reference == "fake-1":
                raise ModelError("fake-1 is not on this machine.")
            return runs.fakes.FakeEncoder(fingerprint="fake-2")

        with pytest.raises(IndexMismatch) as caught:
            Live(runs.generations, Encoders("fake-2", open_=open_), alpha=0.5).searcher()
        assert str(caught.value) == (
            "The index was made by the encoder fake-1, which is not here: fake-1 is not on this machine. "
            "fake-2 is another one. "
            "Set `encoder` to where it lies, or run `beleg rebuild --encoder MODEL` to build an index for another one."
        )

    def test_documents_that_lack_chunks_or_vectors_get_them(self, runs: Runs) -> None:
        """As after a rebuild: its generation is live, and what a killed run had put for the one before lacks both."""
        runs.write(a=long("Anker"), b=long("Balken"))
        runs()
        other = Maker(runs.fakes.FakeEncoder(fingerprint="fake-2"), ChunkSize(40, 5))
        other.fill(runs.store)
        built = runs.generations.build(other.stamp, "fake-2", dimensions=32)
        runs.generations.swap(built, expected=runs.generations.live(), keep=True)
        made = runs.fakes.document(next(iter(runs.store.known())), "Ein Zusatz über den Zaun.")
        runs.fakes.put_lines(runs.store, runs.encoder, made, chunking=runs.maker.stamp.chunking)
        (runs.files / "a.txt").unlink()
        (runs.files / "b.txt").unlink()
        runs.encoder = runs.fakes.FakeEncoder(fingerprint="fake-2")
        assert runs(size=ChunkSize(40, 5)) == {}
        assert runs.published
        assert len(runs.encoded()) == 1
        assert len(runs.search("Zaun")) == 1

    def test_chunks_that_do_not_fit_the_encoder(self, runs: Runs) -> None:
        runs.write(a="Anker")
        runs.encoder = runs.fakes.FakeEncoder(max_tokens=100)
        with pytest.raises(SettingsError) as caught:
            runs(size=ChunkSize(100 - CONTEXT_TOKENS + 1, 5))
        assert str(caught.value) == (
            "chunk_tokens is 69, but the encoder sees 100 tokens, of which titles and headings may take 32. "
            "Set it to 68 or less."
        )
        assert runs(size=ChunkSize(100 - CONTEXT_TOKENS, 5)) == {"a": "added"}


def test_every_lost_part_of_an_index_is_built_again(runs: Runs) -> None:
    runs.write(a=long("Anker"))
    runs()
    runs.encoded()
    for lost in ("manifest.json", "vectors.npy", "vectors.faiss", "ids.npy", "documents.npy", "terms/meta.json", "terms/*.pos"):
        live = runs.generations.live()
        assert live is not None
        for file in (runs.index / live.name).glob(lost):
            file.unlink()
        assert runs() == {"a": "unchanged"}
        assert runs.published
        assert "a" in runs.search("Anker")
    assert runs.encoded() == []


def test_a_second_run_at_once_is_refused(runs: Runs, tmp_path: Path) -> None:
    runs.write(a="Anker")
    with Store(tmp_path / "data") as other, other.writer(), pytest.raises(StoreLocked):
        runs()


def test_a_second_run_waits_if_told_to(runs: Runs, tmp_path: Path) -> None:
    runs.write(a="Anker")
    held = threading.Event()

    def hold() -> None:
        with Store(tmp_path / "data") as other, other.writer():
            held.set()
            time.sleep(0.2)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert runs(wait_s=20) == {"a": "added"}
    thread.join()


def test_metadata_and_titles_can_be_searched(runs: Runs) -> None:
    (runs.files / "b.md").write_text("# Reisekosten\n\n## Verpflegung\n\nEs gilt der Satz des Landes, in dem gegessen wird.")
    runs.write(a="Ein anderes Papier über das Essen auf dem Lande und in der Stadt.")
    runs()
    assert runs.search("Reisekosten", filters={"kind": ["markdown"]}) == ["b"]
    assert runs.search("Land", filters={"kind": ["markdown"]}) == ["b"]
    assert runs.search("Reisekosten", filters={"kind": ["text"]}) == []
