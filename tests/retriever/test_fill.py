"""What the store lacks of a stamp is made, whatever a killed run left of it, and nothing is made twice."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

from retriever.analyze import ANALYSER
from retriever.chunk import CHUNKER, CONTEXT_TOKENS, ChunkSize
from retriever.errors import IndexMismatch, SettingsError
from retriever.fill import GROUP, Maker, size_of, stamp_of
from retriever.index.base import Generation, Stamp
from retriever.schema import Heading
from retriever.store import Entry, Store

SIZE = ChunkSize(20, 5)
SENTENCES = " ".join(f"Das Hotel Nummer {number} liegt an der Bahn." for number in range(20))


@pytest.fixture
def maker(fakes: ModuleType) -> Maker:
    return Maker(fakes.FakeEncoder(), SIZE)


def put(store: Store, maker: Maker, document: Any) -> int:
    """Store a document as `Ingest` does."""
    chunks, inputs = maker.chunks(document)
    vectors = dict(zip(inputs, maker.encoder.encode_passages(list(inputs.values())), strict=True))
    stamp = maker.stamp
    return store.put(document, chunks, loader="1", chunking=stamp.chunking, encoder=stamp.encoder, vectors=vectors)


def entries(store: Store, maker: Maker) -> list[Entry]:
    stamp = maker.stamp
    return list(store.entries(store.current(store.revision()), chunking=stamp.chunking, encoder=stamp.encoder))


def content(found: Sequence[Entry]) -> list[tuple[object, ...]]:
    return [(entry.passage, entry.terms, entry.vector.tobytes()) for entry in found]


class TestMaker:
    def test_chunks_fit_with_what_the_encoder_shall_see_of_them(self, maker: Maker, fakes: ModuleType) -> None:
        text = f"Anreise\n\n{SENTENCES}"
        made = fakes.document("a", text, title="Handbuch")
        made = type(made)(
            **{**{name: getattr(made, name) for name in made.__slots__}, "headings": (Heading(1, "Anreise", 0, 7),)}
        )
        chunks, inputs = maker.chunks(made)
        assert len(chunks) == len(inputs) > 5
        for item in chunks:
            assert item.chunk.text == text[item.chunk.start : item.chunk.end]
            assert inputs[item.key] == f"Handbuch > Anreise\n{item.chunk.text}"
            assert item.key == hashlib.sha256(inputs[item.key].encode()).hexdigest()
            assert item.terms[:2] == ["de:handbuch", "de:anreis"]

    def test_what_is_encoded_later_is_what_is_encoded_at_once(self, store: Store, maker: Maker, fakes: ModuleType) -> None:
        """The key of a vector is a hash of what was encoded, whichever way it came there."""
        made = fakes.document("a", f"Anreise\n\n{SENTENCES} 😀", title="Reise > " + "kosten " * (CONTEXT_TOKENS + 5))
        _, inputs = maker.chunks(made)
        store.put(made, [], loader="1", chunking="", encoder="", vectors={})
        maker.fill(store)
        assert sorted(maker.encoder.encoded) == sorted(inputs.values())  # type: ignore[attr-defined]
        assert {hashlib.sha256(text.encode()).hexdigest() for text in inputs.values()} == set(inputs)

    def test_equal_chunks_share_a_key(self, maker: Maker, fakes: ModuleType) -> None:
        sentence = "Das Hotel liegt an der Bahn und hat viele Zimmer für alle Gäste im Land."
        chunks, inputs = maker.chunks(fakes.document("a", f"{sentence}\n\n{sentence}"))
        assert (len(chunks), len(inputs)) == (2, 1)

    def test_chunks_that_do_not_fit_the_encoder(self, fakes: ModuleType) -> None:
        encoder = fakes.FakeEncoder(max_tokens=100)
        with pytest.raises(SettingsError) as caught:
            Maker(encoder, ChunkSize(100 - CONTEXT_TOKENS + 1, 5))
        assert caught.value.way_out == "Set it to 68 or less."
        Maker(encoder, ChunkSize(100 - CONTEXT_TOKENS, 5))


class TestStamp:
    def test_what_stands_in_it(self, fakes: ModuleType) -> None:
        encoder = fakes.FakeEncoder(tokenizer="0123456789abcdefgh")
        assert stamp_of(encoder, SIZE) == Stamp("fake-1", f"{CHUNKER}:20:5:0123456789abcdef", ANALYSER)

    @pytest.mark.parametrize("size", [SIZE, ChunkSize(200, 0)])
    def test_the_size_can_be_read_from_it(self, fakes: ModuleType, size: ChunkSize) -> None:
        assert size_of(Generation("g", stamp_of(fakes.FakeEncoder(), size), "x")) == size

    @pytest.mark.parametrize(("chunker", "analyser"), [("0:20:5:words", ANALYSER), (f"{CHUNKER}:20:5:words", "0")])
    def test_what_another_version_made_cannot_be_gone_on_with(self, chunker: str, analyser: str) -> None:
        with pytest.raises(IndexMismatch, match=r"another version of Beleg.*beleg rebuild"):
            size_of(Generation("g", Stamp("fake-1", chunker, analyser), "x"))


class TestFill:
    def test_where_nothing_lacks_nothing_is_done(self, store: Store, maker: Maker, fakes: ModuleType) -> None:
        assert maker.fill(store) == 0
        put(store, maker, fakes.document("a", SENTENCES))
        encoded = len(maker.encoder.encoded)  # type: ignore[attr-defined]
        assert maker.fill(store) == 0
        assert len(maker.encoder.encoded) == encoded  # type: ignore[attr-defined]

    def test_another_size_of_chunk(self, store: Store, maker: Maker, fakes: ModuleType) -> None:
        """The documents are cut from the store, and the vectors of chunks that stay the same are used again."""
        for name, text in [("a", SENTENCES), ("kurz", "Ein kurzer Text."), ("leer", "")]:
            put(store, maker, fakes.document(name, text))
        before, revision = content(entries(store, maker)), store.revision()
        encoder = fakes.FakeEncoder()
        larger = Maker(encoder, ChunkSize(40, 5))
        told: list[int] = []
        chunks = len(larger.chunks(fakes.document("a", SENTENCES))[0])
        assert larger.fill(store, progress=told.append) == 2 + chunks
        assert sum(told) == len(encoder.encoded) == chunks
        assert not any("kurzer" in text for text in encoder.encoded)
        assert larger.fill(store) == 0
        assert store.revision() == revision
        assert content(entries(store, maker)) == before

        # The same as if the documents had been put with it.
        other = fakes.FakeEncoder(fingerprint="fake-1")
        with Store(store.path.parent / "other") as clean:
            for name, text in [("a", SENTENCES), ("kurz", "Ein kurzer Text."), ("leer", "")]:
                put(clean, Maker(other, ChunkSize(40, 5)), fakes.document(name, text))
            assert content(entries(clean, larger)) == content(entries(store, larger))

    def test_another_encoder(self, store: Store, maker: Maker, fakes: ModuleType) -> None:
        put(store, maker, fakes.document("a", SENTENCES))
        put(store, maker, fakes.document("b", SENTENCES, title="a"))  # shares all vectors
        other = Maker(fakes.FakeEncoder(fingerprint="fake-2"), SIZE)
        assert other.fill(store) == len(entries(store, maker)) / 2
        assert sorted(other.encoder.encoded) == sorted(set(maker.encoder.encoded))  # type: ignore[attr-defined]
        for mine, theirs in zip(entries(store, other), entries(store, maker), strict=True):
            assert (mine.passage, mine.terms) == (theirs.passage, theirs.terms)
            assert mine.vector.tobytes() != theirs.vector.tobytes()
        assert other.fill(store) == 0

    def test_only_what_is_current(self, store: Store, maker: Maker, fakes: ModuleType) -> None:
        put(store, maker, fakes.document("a", SENTENCES))
        put(store, maker, fakes.document("b", "Das bleibt hier stehen."))
        store.remove("a")
        other = Maker(fakes.FakeEncoder(fingerprint="fake-2"), ChunkSize(40, 5))
        assert other.fill(store) == 2
        assert len(other.encoder.encoded) == 1  # type: ignore[attr-defined]

    def test_killed_it_keeps_what_it_finished(self, store: Store, maker: Maker, fakes: ModuleType) -> None:
        lines = "\n\n".join(f"Zeile {number} sagt etwas über das Haus und über den Garten." for number in range(2 * GROUP))
        put(store, maker, fakes.document("a", lines))
        chunks = len(entries(store, maker))
        assert chunks > GROUP

        class Killed(BaseException):
            pass

        class Failing(fakes.FakeEncoder):  # type: ignore[misc, name-defined]
            def encode_passages(self, texts: Sequence[str], **rest: Any) -> Any:
                if self.encoded:
                    raise Killed
                return super().encode_passages(texts, **rest)

        failing, told = Failing(fingerprint="fake-2"), list[int]()
        with pytest.raises(Killed):
            Maker(failing, SIZE).fill(store, progress=told.append)
        assert told == [GROUP]
        again = Maker(fakes.FakeEncoder(fingerprint="fake-2"), SIZE)
        assert again.fill(store) == chunks - GROUP
        assert not set(again.encoder.encoded) & set(failing.encoded)  # type: ignore[attr-defined]

    def test_a_document_that_is_replaced_meanwhile(self, store: Store, maker: Maker, fakes: ModuleType) -> None:
        """Whoever fills holds no writer's lock: documents come and go between what is found to lack and what is made."""
        put(store, maker, fakes.document("a", SENTENCES))
        put(store, maker, fakes.document("b", "Das bleibt hier stehen."))
        store_path = store.path.parent

        class Replacing(fakes.FakeEncoder):  # type: ignore[misc, name-defined]
            def encode_passages(self, texts: Sequence[str], **rest: Any) -> Any:
                if not self.encoded:
                    with Store(store_path) as other, other.writer():
                        put(other, maker, fakes.document("a", "Ein anderer Text steht jetzt hier."))
                        other.collect(
                            other.revision(), chunkings=[maker.stamp.chunking, changed.stamp.chunking], encoders=["fake-1"]
                        )
                return super().encode_passages(texts, **rest)

        changed = Maker(Replacing(fingerprint="fake-2"), ChunkSize(40, 5))
        rounds = 0
        while changed.fill(store):
            rounds += 1
        assert rounds == 2
        assert {entry.passage.text for entry in entries(store, changed)} == {
            "Ein anderer Text steht jetzt hier.",
            "Das bleibt hier stehen.",
        }

    def test_a_document_of_white_space_does_not_keep_it_going(self, store: Store, maker: Maker, fakes: ModuleType) -> None:
        """It has text and yet no chunk: it lacks nothing that could be made."""
        put(store, maker, fakes.document("a", " \n\n "))
        assert maker.fill(store) == 0
