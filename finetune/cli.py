"""`beleg evaluate` and `beleg calibrate`. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
from pathlib import Path

import click

from retriever.cli import json_option, open_settings

__all__ = ["calibrate", "evaluate"]

_questions = click.argument("questions", type=click.Path(path_type=Path, dir_okay=False))


@click.command()
@_questions
@click.option("--split", help="Only questions of this split.")
@click.option("--search-only", is_flag=True, help="Measure search and ask no language model.")
@click.option("--answers", type=click.Path(path_type=Path), help="Write every answer to this file, one JSON object a line.")
@json_option
def evaluate(questions: Path, *, split: str | None, search_only: bool, answers: Path | None, as_json: bool) -> None:
    """Measure search and answers on QUESTIONS with known answers, a JSON object a line.

    Each has id, question, answer (null if the documents do not tell), and proof: source and text, verbatim. See
    examples/questions.jsonl. The documents must be indexed.
    """
    from rich.progress import Progress

    from finetune.evaluate import answer_all, score_answers, score_search
    from reader.pipeline import Pipeline
    from reader.schema import answer_json
    from retriever.questions import read_questions

    asked = read_questions(questions, split=split)
    with Pipeline.open(open_settings(), reader=not search_only) as pipeline, Progress(disable=as_json, transient=True) as bar:
        proven = sum(question.proof is not None for question in asked)
        task = bar.add_task("Searching", total=4 * proven)
        result: dict[str, object] = {"search": score_search(pipeline, asked, progress=lambda: bar.advance(task))}
        if not search_only:
            task = bar.add_task("Answering", total=len(asked))
            found = answer_all(pipeline, asked, progress=lambda: bar.advance(task))
            result["answers"] = score_answers(found)
            if answers:
                lines = [
                    {"id": item.question.id, "question": item.question.question, "gold": item.question.answers,
                     "verbatim": item.verbatim, "golden": item.golden, **answer_json(item.answer)}
                    for item in found
                ]  # fmt: skip
                answers.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    click.echo(json.dumps(result, ensure_ascii=False) if as_json else json.dumps(result, ensure_ascii=False, indent=2))


@click.command()
@_questions
@click.option("--split", help="Only questions of this split.")
@json_option
def calibrate(questions: Path, *, split: str | None, as_json: bool) -> None:
    """Learn from QUESTIONS how weak passages may be before Beleg abstains, and keep it beside the index.

    Questions without an answer (null) are needed: a dozen at least. Measure on other questions than these.
    """
    from finetune.calibrate import calibrated
    from reader.calibration import write_calibration
    from reader.pipeline import Pipeline
    from retriever.questions import read_questions

    chosen = open_settings()
    asked = read_questions(questions, split=split)
    with Pipeline.open(chosen) as pipeline:
        result = calibrated(pipeline, asked)
    path = write_calibration(chosen.data_dir, result.calibration)
    if as_json:
        click.echo(json.dumps({"path": str(path), "least_strength": result.calibration.least_strength,
                               "rightly": result.rightly, "wrongly": result.wrongly}))  # fmt: skip
    else:
        click.echo(
            f"Passages weaker than {result.calibration.least_strength:.3f} are left unanswered: that catches {result.rightly} "
            f"of the questions without an answer, and {result.wrongly} with one. Written to {path}."
        )
