"""Indexing throughput against the bare encoder on the same chunks, in one run; and a re-index with 1% changed documents.

    python benchmarks/ingest.py FILE.pdf… [--documents 400]

The first part indexes the given files. The second makes plain text documents from their pages, indexes them, changes one in a
hundred, and indexes again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from record import DEFAULT_OUT, record

from retriever.chunk import ChunkSize, context
from retriever.encode import MiniLM, open_encoder
from retriever.fill import Maker
from retriever.index.embedded import EmbeddedGenerations
from retriever.ingest import Ingest
from retriever.load import load
from retriever.settings import Settings
from retriever.store import Store


def maker_of(encoder: MiniLM, settings: Settings) -> Maker:
    return Maker(encoder, ChunkSize(settings.chunk_tokens, settings.chunk_overlap))


def index(store: Store, encoder: MiniLM, paths: list[Path], settings: Settings) -> float:
    generations = EmbeddedGenerations(store, store.path.parent / "generations")
    run = Ingest(store, generations, maker_of(encoder, settings), settings.encoder, 1 << 30, 300)
    begin = time.perf_counter()
    run.run(paths)
    return time.perf_counter() - begin


def bare(encoder: MiniLM, texts: list[str]) -> float:
    """Return the seconds that sentence-transformers takes by itself, at the same precision."""
    begin = time.perf_counter()
    encoder._model.encode(texts, batch_size=32, normalize_embeddings=True)
    return time.perf_counter() - begin


def throughput(files: list[Path], encoder: MiniLM, settings: Settings, out: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch, Store(Path(scratch)) as store:
        begin = time.perf_counter()
        documents = [load(file, max_bytes=1 << 30) for file in files]
        load_s = time.perf_counter() - begin
        index_s = index(store, encoder, files, settings)
        rows = store._read("SELECT d.title, c.headings, c.text FROM chunks c JOIN documents d USING (revision)")
        texts = [f"{context(title, json.loads(headings), encoder)}\n{text}" for title, headings, text in rows]
        bare_s = bare(encoder, texts)
        line = record(
            "ingest", data=files, seed=0, out=out, pages=sum(len(document.pages) for document in documents),
            chunks=len(texts), load_s=load_s, index_s=index_s, bare_encoder_s=bare_s, chunks_per_s=len(texts) / index_s,
            ratio_to_bare=bare_s / index_s, precision=encoder.precision,
        )  # fmt: skip
        print(json.dumps(line))


def reindex(files: list[Path], count: int, encoder: MiniLM, settings: Settings, out: Path) -> None:
    pages = []
    for file in files:
        document = load(file, max_bytes=1 << 30)
        ends = [*document.pages[1:], len(document.text)]
        pages += [document.text[start:end] for start, end in zip(document.pages, ends, strict=True)]
    with tempfile.TemporaryDirectory() as scratch, Store(Path(scratch, "data")) as store:
        texts = Path(scratch, "texts")
        texts.mkdir()
        for number in range(count):
            # The number makes every document's passages its own: equal ones would share vectors.
            (texts / f"{number}.txt").write_text(f"Document {number}\n\n{pages[number % len(pages)]}", encoding="utf-8")
        full_s = index(store, encoder, [texts], settings)
        for number in range(0, count, 100):
            with (texts / f"{number}.txt").open("a", encoding="utf-8") as file:
                file.write("\n\nOne more sentence stands here now.")
        changed_s = index(store, encoder, [texts], settings)
        unchanged_s = index(store, encoder, [texts], settings)
        _, chunks = store.count(store.revision(), maker_of(encoder, settings).stamp.chunking)
        line = record(
            "reindex", data=files, seed=0, out=out, documents=count, chunks=chunks, full_s=full_s,
            one_percent_s=changed_s, unchanged_s=unchanged_s, speedup=full_s / changed_s,
        )  # fmt: skip
        print(json.dumps(line))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    options = parser.parse_args()
    settings = Settings()
    encoder = open_encoder(settings.encoder)
    encoder.encode_passages(["warm"] * 64)
    throughput(options.files, encoder, settings, options.out)
    reindex(options.files, options.documents, encoder, settings, options.out)


if __name__ == "__main__":
    main()
