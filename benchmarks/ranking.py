"""nDCG@10 of search on SQuAD-shaped files, for dense, BM25, RRF and fused, with the settings as they are.

Two kinds of label: the answer's span against chunks, and, to compare with other programs, the paragraph against paragraphs.

    python benchmarks/ranking.py FILE.json… [--alpha 0.5]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import fmean

from record import DEFAULT_OUT, record

from retriever.chunk import ChunkSize
from retriever.encode import open_encoder
from retriever.encoders import Encoders
from retriever.fill import Maker
from retriever.index.embedded import EmbeddedGenerations
from retriever.ingest import Ingest
from retriever.live import Live
from retriever.metrics import Label, evaluate
from retriever.schema import Hit
from retriever.settings import Settings
from retriever.store import Store

MODES = ("dense", "keyword", "rrf", "fused")


def read(file: Path, folder: Path) -> tuple[dict[str, str], dict[str, tuple[str, int, int]]]:
    """Write each paragraph as a text file; return questions and, by question, (file name, start, end) of the answer."""
    questions, spans = {}, {}
    for number, article in enumerate(json.loads(file.read_text())["data"]):
        for place, paragraph in enumerate(article["paragraphs"]):
            name = f"{number}-{place}.txt"
            (folder / name).write_text(paragraph["context"], encoding="utf-8")
            for asked in paragraph["qas"]:
                answer = asked["answers"][0]
                questions[str(asked["id"])] = asked["question"]
                spans[str(asked["id"])] = (name, answer["answer_start"], answer["text"])
    return questions, spans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--alpha", type=float)
    options = parser.parse_args()
    settings = Settings(alpha=options.alpha)
    encoder = open_encoder(settings.encoder, threads=1)
    for file in options.files:
        with tempfile.TemporaryDirectory() as scratch:
            texts, data = Path(scratch, "texts"), Path(scratch, "data")
            texts.mkdir()
            questions, spans = read(file, texts)
            with Store(data) as store:
                maker = Maker(encoder, ChunkSize(settings.chunk_tokens, settings.chunk_overlap))
                generations = EmbeddedGenerations(store, data / "generations")
                Ingest(store, generations, maker, settings.encoder, 1 << 30, 300).run([texts])
                encoders = Encoders(settings.encoder, open_=lambda _: encoder)
                searcher = Live(generations, encoders, alpha=settings.alpha).searcher()
                by_name = {Path(source).name: known.document for source, known in store.known().items()}
                labels, lost = {}, 0
                for key, (name, start, answer) in spans.items():
                    document = store.document(by_name[name])
                    # Offsets of such files are not to be trusted, and loading normalises white space: the nearest match counts.
                    wanted = " ".join(answer.split())
                    text = document.text if document else ""
                    places = [at for at in range(len(text)) if text.startswith(wanted, at)]
                    if not places:
                        lost += 1
                        continue
                    at = min(places, key=lambda at: abs(at - start))
                    labels[key] = [Label(by_name[name], at, at + len(wanted))]
                numbers: dict[str, float] = {}
                for mode in MODES:
                    hits = {key: searcher.search(questions[key], limit=30, mode=mode, merge=False) for key in labels}
                    numbers[f"{mode}_span"] = mean(evaluate(labels, {key: found[:10] for key, found in hits.items()}))
                    whole = {key: [Label(spans_[0].document, 0, 10**9)] for key, spans_ in labels.items()}
                    paragraphs = {key: as_documents(found) for key, found in hits.items()}
                    numbers[f"{mode}_document"] = mean(evaluate(whole, paragraphs))
                line = record(
                    "ranking", data=[file], seed=0, out=options.out, file=file.name, questions=len(labels), unplaced=lost,
                    chunks=store.count(store.revision(), maker.stamp.chunking)[1], alpha=searcher.alpha, **numbers,
                )  # fmt: skip
                print(json.dumps(line))


def as_documents(hits: list[Hit]) -> list[Hit]:
    """Return the documents of hits, each once, as hits that span all of it."""
    seen = dict.fromkeys(hit.document for hit in hits)
    return [Hit(name, "", "", "", (), None, 0, 10**9, "", 0.0, None, None, 0) for name in list(seen)[:10]]


def mean(values: dict[str, dict[str, float]]) -> float:
    return fmean(values["nDCG@10"].values())


if __name__ == "__main__":
    main()
