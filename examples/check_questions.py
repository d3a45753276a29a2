"""Checks questions.jsonl against the handbook: run it after changing either.

    python examples/check_questions.py

Each proof must occur exactly once in its source and in no other document, once every run of white space counts as one
space; ids and questions are unique; a question without an answer has no proof; each language has as many questions in
one split as in the other, answerable or not; an answer is a part of its proof, except where the kind says that it need
not be. The exit status is 1 if anything is wrong. Runs in Beleg's own environment; the scan needs Tesseract.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from retriever.load import load

HERE = Path(__file__).resolve().parent
SPLITS = ("calibrate", "measure")
LANGUAGES = ("de", "en")
KINDS = {
    "fact", "number", "date", "name", "identifier", "list", "table", "yesno", "crosslingual", "unanswerable",
}  # fmt: skip
KEYS = {"id", "split", "language", "question", "answer", "answers", "kind", "proof"}
FREE = {"yesno", "list", "crosslingual"}  # kinds whose answer may be worded otherwise than its proof
NOTES = {"near miss", "on topic", "off topic"}  # what kind of unanswerable question it is


def collapse(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) > 3}


def read(path: Path) -> str:
    """The text of a document as Beleg extracts it, white space collapsed."""
    return collapse(load(path, max_bytes=1 << 24).text)


def check(question: dict[str, Any], documents: dict[str, str]) -> list[str]:
    """What is wrong with one question."""
    wrong = []
    if missing := KEYS - set(question):
        return [f"lacks {', '.join(sorted(missing))}"]
    if question["split"] not in SPLITS or question["language"] not in LANGUAGES or question["kind"] not in KINDS:
        wrong.append("unknown split, language or kind")
    if question["kind"] == "unanswerable":
        if question["answer"] is not None or question["proof"] is not None or question["answers"]:
            wrong.append("is unanswerable, yet has an answer or a proof")
        if question.get("note") not in NOTES:
            wrong.append("is unanswerable, yet its note does not say of which sort")
        return wrong
    if not question["answer"] or not question["proof"]:
        return [*wrong, "has no answer or no proof"]
    source, proof = question["proof"]["source"], question["proof"]["text"]
    if source not in documents:
        return [*wrong, f"its source {source} does not exist"]
    if proof != collapse(proof):
        wrong.append("its proof is not stored with single spaces")
    for name, text in documents.items():
        found = text.count(proof)
        if found != (name == source):
            wrong.append(f"its proof occurs {found} times in {name}")
    if question["kind"] not in FREE and question["answer"] not in proof:
        wrong.append(f"its answer {question['answer']!r} is not in its proof")
    return wrong


def main() -> int:
    documents = {f"handbook/{path.name}": read(path) for path in sorted((HERE / "handbook").iterdir())}
    lines = (HERE / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line) for line in lines]
    wrong = [f"{question.get('id')}: {fault}" for question in questions for fault in check(question, documents)]
    for key in ("id", "question"):
        counted = Counter(question[key] for question in questions)
        wrong += [f"{key} {value!r} occurs {times} times" for value, times in counted.items() if times > 1]

    groups = Counter((q["language"], q["proof"] is not None, q["split"]) for q in questions)
    for language in LANGUAGES:
        for answerable in (True, False):
            one, other = (groups[language, answerable, split] for split in SPLITS)
            if one != other:
                wrong.append(f"{language}, answerable {answerable}: {one} to calibrate, {other} to measure")

    print(f"{len(documents)} documents, {sum(len(text.split()) for text in documents.values())} words")
    for name, text in documents.items():
        asked = sum(1 for q in questions if q["proof"] and q["proof"]["source"] == name)
        print(f"  {name}: {len(text.split())} words, {asked} questions")
    print(f"{len(questions)} questions")
    print("  by split and language:", dict(sorted(Counter(f"{q['split']} {q['language']}" for q in questions).items())))
    print("  by kind:")
    for kind in sorted(KINDS):
        counts = Counter((q["language"], q["split"]) for q in questions if q["kind"] == kind)
        columns = (f"{lang} {split} {counts[lang, split]}" for lang in LANGUAGES for split in SPLITS)
        print(f"    {kind}: {sum(counts.values())} ({', '.join(columns)})")
    answered = [q for q in questions if q["proof"]]
    shares = [len(words(q["question"]) & words(q["proof"]["text"])) / len(words(q["question"])) for q in answered]
    close = sum(share > 0.5 for share in shares)
    print(f"  share most of their words with the proof: {close} of {len(answered)}")
    free = [q for q in answered if q["kind"] in FREE and q["answer"] not in q["proof"]["text"]]
    print("  answer worded otherwise than the proof:", ", ".join(f"{q['id']} ({q['kind']})" for q in free) or "none")
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
