"""What a training sees: nothing that is measured on, nothing that answers as a negative, and given negatives first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.data.schema import Answer, Context, Row
from finetune.negatives import stands
from finetune.prepare import Parts, Prepared, data_hash, prepare, read_parts
from finetune.recipe import Recipe
from finetune.training import Watch
from finetune.workspace import Workspace, source_of_context
from retriever.chunk import ChunkSize
from retriever.errors import BelegError
from retriever.schema import Document, document_id


def recipe(**more: Any) -> Recipe:
    values = {"task": "retriever", "data": {"train": ["x"]}, "chunk_tokens": 16, "chunk_overlap": 4}
    return Recipe.model_validate({**values, **more})


def row(number: object, *, id_: str = "", text: str = "", question: str = "", **more: Any) -> Row:
    text = text or f"The machine m{number} stands in hall h{number}."
    answer = f"hall h{number}"
    answers = (Answer(answer, text.index(answer)),) if answer in text else ()
    made: dict[str, Any] = {"answers": answers, "positives": (Context(text),), "language": "en"}
    return Row(id_ or f"r{number}", question or f"Where is the machine m{number}?", **(made | more))


def run(
    folder: Path, encoder: Any, train: Sequence[Row], dev: Sequence[Row] = (), test: Sequence[Row] = (), **more: Any
) -> Prepared:
    made = recipe(**more)
    with Workspace(folder, ChunkSize(made.chunk_tokens, made.chunk_overlap)) as workspace:
        workspace.add_rows([*train, *dev, *test])
        return prepare(made, Parts(train, dev, test, {}, []), workspace, encoder, Watch())


def test_nor_is_what_repeats_it(tmp_path: Path, fakes: ModuleType) -> None:
    """A test row's context stands in a file that lies there too: the file's other passages may serve, that one may not."""
    told = "The blue press in hall nine is oiled every second Monday by the night shift."
    other = "Visitors leave their badge at the gate before they go home in the evening again."
    train = [row(number) for number in range(3)]
    test = [row("t", text=told, question="When is the blue press oiled?")]
    made = recipe(negatives={"easy": 4, "hard": 4, "margin": None})
    with Workspace(tmp_path, ChunkSize(made.chunk_tokens, made.chunk_overlap)) as workspace:
        workspace.add_rows([*train, *test])
        file = Document(document_id("file.md"), "file.md", "Rules", f"{told}\n\n{other}", "en", "hash")
        workspace.add_documents([file])
        found = prepare(made, Parts(train, [], test, {}, []), workspace, fakes.FakeEncoder(), Watch())
    used = {found.passages.texts[number] for item in found.train.examples for number in item.negatives}
    assert other in used
    assert not any(told in text for text in used)


def test_translations_are_told_apart_on_request(tmp_path: Path, fakes: ModuleType) -> None:
    rows = [row(number, id_=f"q{number}") for number in range(4)]
    rows += [
        row(number, id_=f"q{number}", text=f"Die Maschine m{number} steht in hall h{number}.", language="de")
        for number in range(4)
    ]
    for apart in (False, True):
        negatives = {"easy": 0, "hard": 2, "margin": None, "translations": apart}
        made = run(tmp_path / str(apart), fakes.FakeEncoder(), rows, negatives=negatives)
        twin = {at: made.train.examples[(at + 4) % 8].positive for at in range(8)}
        assert [twin[item.row] in item.negatives for item in made.train.examples] == [apart] * 8
        assert [twin[item.row] in item.golden for item in made.train.examples] == [not apart] * 8


def document_of(text: Context) -> str:
    return document_id(source_of_context(text))


def test_nothing_that_is_measured_on_is_a_negative(tmp_path: Path, fakes: ModuleType) -> None:
    rows = [row(number) for number in range(12)]
    train, dev, test = rows[:6], rows[6:9], rows[9:]
    for easy, hard, share in ((4, 8, 0.0), (2, 2, 1.0)):
        negatives = {"easy": easy, "hard": hard, "easy_share": share, "margin": None}
        made = run(tmp_path / str(easy), fakes.FakeEncoder(), train, dev, test, negatives=negatives)
        assert [len(part.examples) for part in (made.train, made.dev)] == [6, 3]
        measured = {document_of(text) for item in (*dev, *test) for text in item.positives}
        tested = {document_of(text) for item in test for text in item.positives}
        for part, barred in ((made.train, measured), (made.dev, tested)):
            for item in part.examples:
                assert len(item.negatives) == easy + hard
                assert item.positive not in item.negatives
                assert not barred & {made.passages.documents[number] for number in item.negatives}


def test_translations_are_not_told_apart(tmp_path: Path, fakes: ModuleType) -> None:
    rows = [row(number) for number in range(4)]
    rows += [
        row(f"{number}de", id_=f"r{number}", text=f"Die Maschine m{number} steht in Halle h{number}.") for number in range(4)
    ]
    made = run(tmp_path, fakes.FakeEncoder(), rows, negatives={"easy": 4, "hard": 4, "margin": None, "answers": False})
    of = {item.row: item for item in made.train.examples}
    for number in range(4):
        both = {of[number].positive, of[number + 4].positive}
        assert len(both) == 2
        assert of[number].golden == of[number + 4].golden == both
        assert not both & {*of[number].negatives, *of[number + 4].negatives}


def test_other_positives_are_no_negatives(tmp_path: Path, fakes: ModuleType) -> None:
    also = Context("Somebody has put the machine m0 next to the gate.")
    first = row(0)
    rows = [Row("r0", first.question, first.answers, (*first.positives, also)), *(row(number) for number in range(1, 5))]
    made = run(tmp_path, fakes.FakeEncoder(), rows, negatives={"easy": 4, "hard": 8, "margin": None})
    assert document_of(also) in made.passages.documents
    assert document_of(also) not in {made.passages.documents[number] for number in made.train.examples[0].negatives}
    assert document_of(also) in {made.passages.documents[number] for number in made.train.examples[1].negatives}


def test_only_translations_of_one_row(tmp_path: Path, fakes: ModuleType) -> None:
    rows = [row(number, id_="same") for number in range(3)]
    with pytest.raises(BelegError, match="nothing to tell their answers apart from"):
        run(tmp_path, fakes.FakeEncoder(), rows)


@pytest.mark.parametrize("count", [1, 2])
def test_tiny_corpora(tmp_path: Path, fakes: ModuleType, count: int) -> None:
    rows = [row(number) for number in range(count)]
    if count == 1:
        with pytest.raises(BelegError, match="nothing to tell their answers apart from"):
            run(tmp_path, fakes.FakeEncoder(), rows)
        return
    made = run(tmp_path, fakes.FakeEncoder(), rows, negatives={"easy": 2, "hard": 3, "margin": None})
    for item in made.train.examples:
        assert set(item.negatives) == {1 - item.positive}
        assert len(item.negatives) == 5


def test_given_ones_come_first_unless_they_answer(tmp_path: Path, fakes: ModuleType) -> None:
    given_ = [Context("The canteen opens at noon."), Context("In hall h0 stands nothing."), Context("Rain is expected.")]
    rows = [row(0, hard_negatives=tuple(given_)), *(row(number) for number in range(1, 6))]
    negatives = {"easy": 0, "hard": 3, "margin": None}
    made = run(tmp_path / "one", fakes.FakeEncoder(), rows, negatives=negatives)
    texts = [made.passages.texts[number] for number in made.train.examples[0].negatives]
    assert texts[:2] == [given_[0].text, given_[2].text]
    assert texts[2].startswith("The machine")
    report: Any = made.train.report["hard"]
    assert report["given"] == 3
    assert report["dropped"]["holds the answer"] == 1
    without = run(tmp_path / "two", fakes.FakeEncoder(), rows, negatives={**negatives, "given": False, "mine": ["dense"]})
    assert without.train.report["hard"]["given"] == 0  # type: ignore[index]


def test_the_positive_is_the_chunk_with_the_answer(tmp_path: Path, fakes: ModuleType) -> None:
    sentences = [f"Sentence number {number} tells something about topic t{number}." for number in range(20)]
    text = " ".join([*sentences[:13], "The machine m0 stands in hall h0.", *sentences[13:]])
    made = run(tmp_path, fakes.FakeEncoder(), [row(0, text=text), row(1)], negatives={"easy": 1, "hard": 0})
    assert len(made.passages) > 5
    assert "hall h0" in made.passages.texts[made.train.examples[0].positive]


def test_rows_without_a_chunk_are_counted(tmp_path: Path, fakes: ModuleType) -> None:
    white = row("blank", text="  \n ", positives=(Context("  \n "),), answers=())
    made = run(tmp_path, fakes.FakeEncoder(), [white, *(row(number) for number in range(4))])
    assert made.train.report["rows"] == 5
    assert made.train.report["without a positive"] == 1
    assert [item.row for item in made.train.examples] == [1, 2, 3, 4]
    with pytest.raises(BelegError):
        run(tmp_path / "none", fakes.FakeEncoder(), [white])


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_counts_add_up_and_nothing_violates_a_filter(
    tmp_path_factory: pytest.TempPathFactory, fakes: ModuleType, data: st.DataObject
) -> None:
    words = st.lists(st.sampled_from(["alpha", "beta", "gamma", "30", "days"]), min_size=1, max_size=4).map(" ".join)
    texts = data.draw(st.lists(words, min_size=2, max_size=8))
    rows = [
        Row(f"r{at // data.draw(st.integers(1, 2))}", data.draw(words), (Answer(data.draw(words)),), (Context(text),))
        for at, text in enumerate(texts)
    ]
    easy, hard = data.draw(st.integers(0, 2)), data.draw(st.integers(1, 3))
    rows += [Row("far", "what else?", (), (Context("something else"),))]  # so that there is always something to tell apart from
    made = run(tmp_path_factory.mktemp("w"), fakes.FakeEncoder(), rows, negatives={"easy": easy, "hard": hard})
    report: Any = made.train.report
    placed = report["rows"] - report["without a positive"]
    assert len(made.train.examples) == placed - report.get("nothing to tell apart from", 0)
    mined = report["hard"]
    assert mined["used"] + mined["filled with random ones"] <= placed * hard
    assert mined["used"] + sum(mined["dropped"].values()) <= mined["looked at"]
    plain = [" ".join(text.casefold().split()) for text in made.passages.texts]
    for item, chosen in zip(made.train.examples, made.train.hard, strict=True):
        assert len(item.negatives) == easy + hard
        assert not item.golden & set(item.negatives)
        answers = [answer.text for answer in rows[item.row].answers]
        if not easy:  # else a row may lack hard ones, and have its easy ones twice
            assert not any(stands(answer, plain[number]) for answer in answers for number in chosen)
        assert not any(plain[number] == plain[item.positive] for number in item.negatives)


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(item) + "\n" for item in rows), encoding="utf-8")
    return str(path)


def test_parts(tmp_path: Path, lamps: list[dict[str, Any]]) -> None:
    every = lines(tmp_path / "all.jsonl", lamps)
    parts = read_parts(recipe(data={"train": [every]}))
    assert [len(parts.train), len(parts.dev), len(parts.test)] == [45, 6, 13]
    few = read_parts(recipe(data={"train": [every], "limit": 5}))
    assert ([row.id for row in few.train], few.test) == ([row.id for row in parts.train[:5]], parts.test)
    assert data_hash(few) != data_hash(parts) == data_hash(read_parts(recipe(data={"train": [every]})))

    dev = lines(tmp_path / "dev.jsonl", lamps[:3])
    given_ = read_parts(recipe(data={"train": [every], "dev": [dev]}))
    assert [row.id for row in given_.dev] == ["r0", "r1", "r2"]
    assert len(given_.train) + len(given_.test) == 64
    both = read_parts(recipe(data={"train": [every], "dev": [dev], "test": [dev]}))
    assert len(both.train) == 64
    none = read_parts(recipe(data={"train": [every], "split": "none"}, trainer={"early_stopping": None}))
    assert (len(none.train), none.dev, none.test) == (64, [], [])


def test_rows_that_nothing_answers(tmp_path: Path, lamps: list[dict[str, Any]]) -> None:
    empty = lines(tmp_path / "empty.jsonl", [{**item, "positive_ctxs": [], "answers": []} for item in lamps[:4]])
    with pytest.raises(BelegError):
        read_parts(recipe(data={"train": [empty], "split": "none"}, trainer={"early_stopping": None}))
    (tmp_path / "bad.jsonl").write_text(json.dumps(lamps[0]) + "\n{oops\n" + json.dumps(lamps[1]) + "\n")
    settings_ = {"train": [str(tmp_path / "bad.jsonl")], "split": "none"}
    parts = read_parts(recipe(data=settings_, trainer={"early_stopping": None}))
    assert len(parts.train) == 2
    assert [problem.fatal for problem in parts.problems] == [True]
    with pytest.raises(BelegError, match="missing"):
        read_parts(recipe(data={"train": ["missing.jsonl"]}))
