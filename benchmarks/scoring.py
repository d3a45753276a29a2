"""What each part of the scoring formula is worth on real text: recall, nDCG@10 and latency of every variant, side by side.

Reads SQuAD-shaped files (an article becomes a Markdown document with its title; the answers' spans are the labels) and the
example handbook. The questions' vectors are made before, so that times are those of search alone. Recall is that of the ten
nearest chunks against exact cosines.

    python benchmarks/scoring.py FILE.json… --elasticsearch FOLDER_WITH_START_AND_STOP
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from record import DEFAULT_OUT, record
from scale import milliseconds, node

from finetune.evaluate_retriever import Remembering
from retriever.chunk import ChunkSize
from retriever.encode import MiniLM, open_encoder
from retriever.fill import Maker
from retriever.index.base import Candidate, Generation, Index
from retriever.index.engines import open_generations
from retriever.ingest import Ingest
from retriever.metrics import Label, evaluate
from retriever.questions import place, read_questions
from retriever.search import Searcher
from retriever.settings import Settings
from retriever.store import Store

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SEED = 0


@dataclass(frozen=True)
class Variant:
    """A name, and the settings that make it."""

    name: str
    settings: dict[str, str | float]


KINDS = ["int8_hnsw", "hnsw", "int4_hnsw", "bbq_hnsw", "int8_flat", "flat"]
VARIANTS = [
    *(Variant(f"vectors {kind}", {"elasticsearch_vectors": kind}) for kind in KINDS),
    *(Variant(f"oversample {times:g}", {"elasticsearch_oversample": times}) for times in (0, 1, 4)),
    *(
        Variant(
            f"vectors bbq_hnsw, oversample {times:g}", {"elasticsearch_vectors": "bbq_hnsw", "elasticsearch_oversample": times}
        )
        for times in (0, 1, 4)
    ),
    *(Variant(f"candidates {count}", {"elasticsearch_candidates": count}) for count in (50, 1000)),
    Variant("exact", {"elasticsearch_exact": 1}),
    *(Variant(f"title boost {weight:g}", {"title_boost": weight}) for weight in (0.25, 0.5, 1, 2)),
    *(Variant(f"heading boost {weight:g}", {"heading_boost": weight}) for weight in (0.25, 0.5, 1, 2)),
    *(Variant(f"alpha {alpha:g}", {"alpha": alpha}) for alpha in (0, 0.3, 0.4, 0.6, 0.7, 1)),
]


def squad(file: Path, folder: Path) -> Iterator[tuple[str, str, str, str, int]]:
    """Write an article a file; yield each question with the name, its paragraph, and the answer's words and offset in it."""
    for number, article in enumerate(json.loads(file.read_text())["data"]):
        name = f"{number}.md"
        title = article.get("title", "").replace("_", " ") or f"Article {number}"
        paragraphs = [" ".join(paragraph["context"].split()) for paragraph in article["paragraphs"]]
        (folder / name).write_text(f"# {title}\n\n" + "\n\n".join(paragraphs), encoding="utf-8")
        for paragraph, text in zip(article["paragraphs"], paragraphs, strict=True):
            for asked in paragraph["qas"]:
                answer = asked["answers"][0]
                # Offsets in such files count the text before its white space is mended.
                before = " ".join(paragraph["context"][: answer["answer_start"]].split())
                yield asked["question"], name, text, " ".join(answer["text"].split()), len(before)


def labelled(file: Path, folder: Path, store: Store) -> tuple[dict[str, str], dict[str, list[Label]], int]:
    """Return questions, labels, and how many questions have a span that is not found."""
    documents = {Path(source).name: known.document for source, known in store.known().items()}
    texts = {name: document.text for name, key in documents.items() if (document := store.document(key))}
    questions, labels, lost = {}, {}, 0
    for number, (question, name, paragraph, answer, offset) in enumerate(squad(file, folder)):
        flat = re.sub(r"\s", " ", texts[name])
        begin = flat.find(paragraph[:60])
        places = [at for at in range(len(flat)) if flat.startswith(answer, at)] if begin >= 0 else []
        if not places:
            lost += 1
            continue
        at = min(places, key=lambda at: abs(at - begin - offset))
        questions[str(number)], labels[str(number)] = question, [Label(documents[name], at, at + len(answer))]
    return questions, labels, lost


def measure(
    index: Index,
    encoder: Remembering,
    alpha: float | None,
    questions: dict[str, str],
    labels: dict[str, list[Label]],
    exact: Index,
) -> dict[str, float]:
    searcher = Searcher(index, encoder, alpha=alpha)
    for question in list(questions.values())[:50]:  # Java compiles what is used often
        searcher.search(question)
    rankings, seconds, recall = {}, [], []
    for key, question in questions.items():
        begin = time.perf_counter()
        rankings[key] = searcher.search(question, merge=False)
        seconds.append(time.perf_counter() - begin)
    for question in list(questions.values())[::3]:
        vector = encoder.encode_query(question)
        found, best = (ten_best(engine.candidates(vector=vector, terms=[], depth=50, filters={})) for engine in (index, exact))
        # By cosine, not by id: equal chunks tie.
        recall.append(sum(cosine >= best[-1] - 1e-5 for cosine in found) / len(best))
    p50, p95 = milliseconds(seconds)
    ndcg = fmean(evaluate(labels, rankings)["nDCG@10"].values())
    return {"recall_at_10": fmean(recall), "ndcg_at_10": ndcg, "p50_ms": p50, "p95_ms": p95}


def ten_best(candidates: Sequence[Candidate]) -> list[float]:
    return sorted((candidate.dense or 0.0 for candidate in candidates), reverse=True)[:10]


def run(name: str, file: Path | None, url: str, encoder: MiniLM, out: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "texts")
        folder.mkdir()
        base = {"data_dir": Path(scratch, "data"), "index": "elasticsearch", "elasticsearch_url": url}
        settings = Settings.model_validate(base)
        with Store(settings.data_dir) as store:
            if file:
                list(squad(file, folder))
            generations = open_generations(Settings(data_dir=settings.data_dir), store)
            maker = Maker(encoder, ChunkSize(settings.chunk_tokens, settings.chunk_overlap))
            Ingest(store, generations, maker, "", 1 << 30, 300).run([folder if file else EXAMPLES / "handbook"])
            if file:
                questions, labels, lost = labelled(file, folder, store)
            else:
                asked = [question for question in read_questions(EXAMPLES / "questions.jsonl") if question.proof]
                questions, labels, lost = {item.id: item.question for item in asked}, place(asked, store), 0
            remembering = Remembering(encoder)
            for question in questions.values():
                remembering.encode_query(question)
            live = generations.live()
            assert live is not None
            exact = generations.open(live)
            _, chunks = store.count(store.revision(), maker.stamp.chunking)
            built: dict[str, Generation] = {}
            variants = [Variant("embedded", {"index": "embedded"}), Variant("default", {}), *VARIANTS]
            for variant in variants:
                chosen = Settings.model_validate({**base, **variant.settings})
                kind = chosen.elasticsearch_vectors
                chosen = chosen.model_copy(update={"elasticsearch_index": f"{name}-{kind}".replace("_", "-").replace(".", "-")})
                engine = open_generations(chosen, store)
                if chosen.index == "embedded":
                    index: Index = engine.open(live)
                else:
                    if kind not in built:
                        built[kind] = engine.build(maker.stamp, "", dimensions=encoder.dimensions)
                        engine.swap(built[kind], expected=None, keep=False)
                    index = engine.open(built[kind])
                numbers = measure(index, remembering, chosen.alpha, questions, labels, exact)
                data = [file] if file else [EXAMPLES / "questions.jsonl"]
                line = record(
                    "scoring", data=data, seed=SEED, out=out, file=name, variant=variant.name, questions=len(questions),
                    unplaced=lost, chunks=chunks, **numbers,
                )  # fmt: skip
                print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--elasticsearch", type=Path, required=True)
    parser.add_argument("--heap", default="1g")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    options = parser.parse_args()
    encoder = open_encoder(Settings().encoder, threads=1)
    with node(options.elasticsearch, options.heap) as (url, _):
        run("examples", None, url, encoder, options.out)
        for file in options.files:
            run(file.name.removesuffix(".json"), file, url, encoder, options.out)


if __name__ == "__main__":
    main()
