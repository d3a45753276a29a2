"""Every shape becomes the same rows, and what is wrong is named by file, line and field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune.data.hub import open_hub
from finetune.data.read import Problem, Shape, read_all, read_rows, shape_of, stream
from finetune.data.schema import Answer, Context, Row
from retriever.errors import BelegError
from retriever.offline import OfflineError

EXAMPLES = Path(__file__).parents[3] / "examples" / "training"
TEXT = "Für jeden vollen Kalendertag der Abwesenheit werden im Inland 28 Euro gezahlt."
OTHER = "Flüge innerhalb Deutschlands werden nicht erstattet, auch nicht auf Antrag."
DPR: dict[str, Any] = {"question": "Wie viel?", "answers": ["28 Euro"], "positive_ctxs": [{"title": "RL", "text": TEXT}]}
QCA: dict[str, Any] = {"query": "Wie viel?", "context": TEXT, "answer": "28 Euro"}
FLAT: dict[str, Any] = {
    "id": "s1", "title": "RL", "context": TEXT, "question": "Wie viel?",
    "answers": {"text": ["28 Euro"], "answer_start": [62]},
}  # fmt: skip


def lines(folder: Path, *records: object, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = (record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path


def article(*questions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"title": "RL", "paragraphs": [{"context": TEXT, "qas": list(questions)}], **more}


def only(path: Path | str, shape: Shape | None = None) -> Row:
    [row] = read_rows(path, shape=shape)
    return row


def told(path: Path, **options: Any) -> tuple[list[Row], list[Problem]]:
    problems: list[Problem] = []
    return list(read_rows(path, on_problem=problems.append, **options)), problems


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("dpr.jsonl", "dpr", 2),
        ("qca.jsonl", "qca", 3),
        ("squad.json", "squad", 3),
        ("beir", "beir", 2),
        ("feedback.jsonl", "feedback", 2),
    ],
)
def test_the_examples_are_faultless(name: str, shape: str, count: int) -> None:
    rows, problems = told(EXAMPLES / name)
    assert (shape_of(EXAMPLES / name), len(rows), problems) == (shape, count, [])
    assert all(row.id and row.document and row.language in ("de", "en") for row in rows)
    assert all(answer.start is not None for row in rows for answer in row.answers)
    assert {row.origin.rpartition(", line ")[0] for row in rows} <= {
        str(EXAMPLES / name),
        str(EXAMPLES / name / "qrels/train.tsv"),
    }


def test_dpr(tmp_path: Path) -> None:
    record = {**DPR, "negative_ctxs": [{"text": OTHER, "title": None, "passage_id": 7}], "hard_negative_ctxs": None}
    row = only(lines(tmp_path, record))
    assert (row.question, row.answers, row.language, row.document) == ("Wie viel?", (Answer("28 Euro", 62),), "de", "RL")
    assert (row.positives, row.negatives, row.hard_negatives) == ((Context(TEXT, "RL"),), (Context(OTHER),), ())
    assert row.origin == f"{tmp_path / 'rows.jsonl'}, line 1"
    assert only(lines(tmp_path, DPR)).id == row.id, "the id is of the question and the first context"
    assert only(lines(tmp_path, {**DPR, "question": "Wieviel?"})).id != row.id


def test_dpr_as_the_hub_has_it(tmp_path: Path) -> None:
    columns = {"title": ["RL", "RL"], "text": [TEXT, OTHER], "passage_id": ["1", "2"]}
    row = only(lines(tmp_path, {**DPR, "positive_ctxs": columns, "negative_ctxs": {"title": [], "text": []}}))
    assert row.positives == (Context(TEXT, "RL"), Context(OTHER, "RL"))
    assert row.negatives == ()


@pytest.mark.parametrize(
    "record",
    [
        QCA,
        {"question": "Wie viel?", "contexts": [TEXT], "answers": ["28 Euro"]},
        {"query": "Wie viel?", "context": {"text": TEXT}, "answer": ["28 Euro"]},
        {"question": "Wie viel?", "context": [{"text": TEXT, "title": ""}], "answer": "28 Euro"},
    ],
)
def test_qca(tmp_path: Path, record: dict[str, Any]) -> None:
    row = only(lines(tmp_path, record))
    assert (row.question, row.answers, row.positives) == ("Wie viel?", (Answer("28 Euro", 62),), (Context(TEXT),))
    assert len(row.document) == 16
    assert row == only(lines(tmp_path, QCA))


def test_qca_with_all_that_it_may_have(tmp_path: Path) -> None:
    more = {"id": 12, "document": "rl-04.pdf", "title": "RL", "language": "de-AT", "negatives": OTHER, "unknown": 1}
    row = only(lines(tmp_path, {**QCA, **more}))
    assert (row.id, row.document, row.language) == ("12", "rl-04.pdf", "de")
    assert (row.positives, row.negatives) == ((Context(TEXT, "RL"),), (Context(OTHER),))


def test_qca_without_an_answer_is_a_pair_but_null_is_an_error(tmp_path: Path) -> None:
    pair = {key: QCA[key] for key in ("query", "context")}
    assert only(lines(tmp_path, pair)).answers == ()
    with pytest.raises(BelegError, match="line 1: answer: null: if the context does not answer"):
        only(lines(tmp_path, {**QCA, "answer": None}))


@pytest.mark.parametrize("indent", [None, 2])
def test_squad(tmp_path: Path, indent: int | None) -> None:
    questions = [
        {"id": "a", "question": "Wie viel?", "answers": [{"text": "28 Euro", "answer_start": 62}]},
        {
            "id": 2,
            "question": "Wer?",
            "answers": [],
            "is_impossible": True,
            "plausible_answers": [{"text": "x", "answer_start": 0}],
        },
    ]
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"version": "v2.0", "data": [article(*questions)]}, indent=indent), encoding="utf-8")
    answered, impossible = read_rows(path)
    assert (answered.id, answered.document, answered.answers) == ("a", "RL", (Answer("28 Euro", 62),))
    assert (answered.positives, answered.hard_negatives) == ((Context(TEXT, "RL"),), ())
    assert (impossible.id, impossible.document, impossible.answers) == ("2", "RL", ())
    assert (impossible.positives, impossible.hard_negatives) == ((), (Context(TEXT, "RL"),))
    [first, second] = [row.origin for row in (answered, impossible)]
    assert first == f"{path}, line {1 if indent is None else 10}, id a"
    text = path.read_text(encoding="utf-8").splitlines()
    number = int(second.removeprefix(f"{path}, line ").removesuffix(", id 2"))
    assert '"id": 2' in "".join(text[number - 1 : number + 1])


def test_squad_as_the_hub_has_it_and_by_article(tmp_path: Path) -> None:
    flat = only(lines(tmp_path, FLAT))
    asked = {"id": "s1", "question": "Wie viel?", "answers": [{"text": "28 Euro", "answer_start": 62}]}
    by_article = only(lines(tmp_path, article(asked), name="articles.jsonl"))
    whole = only(lines(tmp_path, {"data": [article(asked)]}, name="whole.jsonl"))
    assert {(row.id, row.document, row.answers, row.positives) for row in (flat, by_article, whole)} == {
        ("s1", "RL", (Answer("28 Euro", 62),), (Context(TEXT, "RL"),))
    }
    none = only(lines(tmp_path, {**FLAT, "answers": {"text": [], "answer_start": []}}))
    assert (none.positives, none.hard_negatives) == ((), (Context(TEXT, "RL"),))


def test_squad_always_has_a_document(tmp_path: Path) -> None:
    asked = {"id": "1", "question": "Wie viel?", "answers": [{"text": "28 Euro", "answer_start": 62}]}
    elsewhere = {"id": "2", "question": "Was?", "answers": [{"text": "Flüge", "answer_start": 0}]}
    paragraphs = [{"context": TEXT, "qas": [asked]}, {"context": OTHER, "qas": [elsewhere]}]
    rows = list(read_rows(lines(tmp_path, {"data": [{"paragraphs": paragraphs}]}, name="a.json")))
    assert len({row.document for row in rows}) == 1, "paragraphs of one article are of one document"
    assert len(rows[0].document) == 16
    numbered = [{**paragraph, "document_id": number} for number, paragraph in enumerate(paragraphs, start=630)]
    assert [row.document for row in read_rows(lines(tmp_path, {"data": [{"paragraphs": numbered}]}, name="a.json"))] == [
        "630",
        "631",
    ]


def beir(folder: Path, table: str, *, name: str = "train") -> Path:
    lines(folder, {"_id": "d1", "title": "RL", "text": TEXT}, {"_id": 2, "text": OTHER}, name="corpus.jsonl")
    lines(
        folder,
        {"_id": "q1", "text": "Wie viel?"},
        {"_id": "q2", "text": "Was?"},
        {"_id": "q3", "text": "Wer?"},
        name="queries.jsonl",
    )
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "qrels" / f"{name}.tsv").write_bytes(table.encode())
    return folder


def test_beir(tmp_path: Path) -> None:
    folder = beir(tmp_path, "query-id\tcorpus-id\tscore\r\nq1\td1\t1\r\nq1\t2\t0\r\nq2\td1\t1\nq2\t2\t2\n")
    first, second = read_rows(folder)
    assert (first.id, first.question, first.answers, first.document) == ("q1", "Wie viel?", (), "RL")
    assert (first.positives, first.negatives) == ((Context(TEXT, "RL"),), (Context(OTHER),))
    assert second.positives == (Context(OTHER), Context(TEXT, "RL")), "the better score comes first"
    assert [row.origin for row in (first, second)] == [f"{folder}/qrels/train.tsv, line {line}" for line in (2, 4)]


def test_one_part_of_a_beir_folder(tmp_path: Path) -> None:
    beir(tmp_path, "q1\t0\td1\t1\n")
    folder = beir(tmp_path, "q2\td1\t1\n", name="test")
    assert [row.id for row in read_rows(folder)] == ["q2", "q1"]
    assert [row.id for row in read_rows(folder / "qrels" / "train.tsv")] == ["q1"]


def test_what_is_wrong_in_a_beir_folder(tmp_path: Path) -> None:
    folder = beir(tmp_path, "q1\td1\t1\nq1\tgone\t1\nq2\tgone\t1\nq9\td1\t1\nq3\td1\t0\nq3 d1 1\nq3\td1\thigh\n")
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"title": "no id"}\n')
    rows, problems = told(folder)
    assert [row.id for row in rows] == ["q1"]
    found = {(problem.origin.removeprefix(f"{folder}/"), problem.field, problem.fatal, problem.kind) for problem in problems}
    assert found == {
        ("qrels/train.tsv, line 1", "corpus-id", False, "dropped"),
        ("qrels/train.tsv, line 3", "corpus-id", True, "malformed"),
        ("qrels/train.tsv, line 4", "query-id", True, "malformed"),
        ("qrels/train.tsv, line 5", "score", False, "unused"),
        ("qrels/train.tsv, line 6", "", True, "malformed"),
        ("qrels/train.tsv, line 7", "", True, "malformed"),
        ("corpus.jsonl, line 3", "_id", True, "malformed"),
    }


def test_a_beir_folder_without_judgements(tmp_path: Path) -> None:
    folder = beir(tmp_path, "")
    (folder / "qrels" / "train.tsv").unlink()
    with pytest.raises(BelegError, match=r"has no qrels/\*\.tsv"):
        list(read_rows(folder))


@pytest.mark.parametrize(
    ("record", "field", "message"),
    [
        ({**DPR, "question": None}, "question", "valid string"),
        ({**DPR, "question": ""}, "question", "empty"),
        ({**DPR, "question": ["a"]}, "question", "valid string"),
        ({key: DPR[key] for key in ("question", "answers")}, "positive_ctxs", "missing"),
        ({**DPR, "answers": [1]}, "answers.0", "valid string"),
        ({**DPR, "answers": {"text": ["a"]}}, "answers.0", "valid string"),
        ({**DPR, "positive_ctxs": [{"title": "x"}]}, "positive_ctxs.0.text", "missing"),
        ({**DPR, "positive_ctxs": [{"text": " "}]}, "positives.0", "an empty context"),
        ({**DPR, "positive_ctxs": []}, "positives", "no context at all"),
        ({**DPR, "positive_ctxs": {"text": ["a"], "title": []}}, "positive_ctxs", "not of one length"),
        ({**DPR, "positive_ctxs": [None]}, "positive_ctxs.0", "valid dictionary"),
        ({**DPR, "answer_starts": [1, 2]}, "", "2 answer_starts for 1 answers"),
        ({**DPR, "answer_starts": ["x"]}, "answer_starts.0", "valid integer"),
        ({**DPR, "difficulty": "extreme"}, "difficulty", "easy"),
        ({**DPR, "id": [1]}, "id", "valid string"),
        (
            '{"question": "\\ud83d", "answers": [], "positive_ctxs": "x"}',
            "question",
            "half of a character (U+D83D) stands at 0",
        ),
        ([DPR], "", "not a JSON object, but an array"),
        ("null", "", "not a JSON object, but null"),
        ("{", "", "not valid JSON"),
    ],
)
def test_what_is_wrong_is_named_by_file_line_and_field(tmp_path: Path, record: object, field: str, message: str) -> None:
    path = lines(tmp_path, DPR, record, DPR)
    rows, [problem] = told(path)
    assert len(rows) == 2, "the rest goes on"
    assert (problem.origin, problem.field, problem.fatal) == (f"{path}, line 2", field, True)
    assert message in problem.message
    with pytest.raises(BelegError) as raised:
        list(read_rows(path))
    named = f"{path}, line 2: {field}: " if field else f"{path}, line 2: "
    assert raised.value.message.startswith(named)
    assert raised.value.way_out


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({**FLAT, "answers": {"text": ["28 Euro"], "answer_start": []}}, "answers"),
        ({**FLAT, "answers": "28 Euro"}, "answers"),
        ({**FLAT, "answers": [{"answer_start": 3}]}, "answers.0.text"),
        ({"title": "x", "paragraphs": [{"context": TEXT}]}, "paragraphs.qas"),
        ({"title": "x", "paragraphs": ["text"]}, "paragraphs.qas"),
        ({"title": "x", "paragraphs": {"context": TEXT}}, "paragraphs"),
        ({"data": {}}, "data"),
        ({"title": "x", "paragraphs": [{"qas": [{"question": "?", "answers": []}]}]}, "context"),
        ({"title": "x", "paragraphs": [{"context": TEXT, "qas": ["?"]}]}, ""),
        ({"title": "x", "paragraphs": [{"context": TEXT, "qas": [{"question": "?"}]}]}, "answers"),
        ({"title": "x", "paragraphs": [{"context": 3, "qas": [{"question": "?", "answers": []}]}]}, "context"),
    ],
)
def test_what_is_wrong_in_squad(tmp_path: Path, record: object, field: str) -> None:
    path = lines(tmp_path, FLAT, record)
    rows, [problem] = told(path)
    assert [row.id for row in rows] == ["s1"]
    assert (problem.origin, problem.field, problem.fatal) == (f"{path}, line 2", field, True)


def test_the_first_good_record_says_the_shape(tmp_path: Path) -> None:
    rows, [problem] = told(lines(tmp_path, "{broken", QCA))
    assert (len(rows), problem.fatal) == (1, True)


@pytest.mark.parametrize("record", [{"a": 1, "b": 2}, [1, 2], "a text", {}, {"_id": "d", "text": "x"}])
def test_an_unknown_shape_is_told_what_each_needs(tmp_path: Path, record: object) -> None:
    path = lines(tmp_path, json.dumps(record))
    for read in (lambda: list(read_rows(path)), lambda: told(path), lambda: shape_of(path)):
        with pytest.raises(BelegError, match="has no known shape") as raised:
            read()
        assert all(f"{shape}: " in raised.value.way_out for shape in ("dpr", "qca", "squad", "beir", "feedback"))


def test_a_given_shape_is_taken(tmp_path: Path) -> None:
    # By its fields it would be dpr.
    both = {**DPR, **QCA}
    assert only(lines(tmp_path, both)).document == "RL"
    assert only(lines(tmp_path, both), "qca").document != "RL"
    rows, problems = told(lines(tmp_path, QCA), shape="squad")
    assert (rows, [problem.field for problem in problems]) == ([], ["question"])
    with pytest.raises(BelegError, match="is not of the shape beir"):
        only(lines(tmp_path, QCA), "beir")
    with pytest.raises(BelegError, match="is a BEIR folder, not dpr"):
        list(read_rows(EXAMPLES / "beir", shape="dpr"))


@pytest.mark.parametrize(
    ("name", "text"), [("a.jsonl", ""), ("a.json", ""), ("a.jsonl", " \n\n"), ("a.json", "[]"), ("a.json", '{"data": []}')]
)
def test_a_source_without_records_is_an_error(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    for read in (
        lambda: list(read_rows(path)),
        lambda: told(path),
        lambda: shape_of(path),
        lambda: list(read_rows(path, shape="dpr")),
    ):
        with pytest.raises(BelegError, match=f"{name} holds no record"):
            read()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone.jsonl", "There is no"),
        ("gone/far/away", "There is no"),
        ("table.csv", "none of"),
        ("folder", "none of"),
        ("", "none of"),
    ],
)
def test_what_is_no_source(tmp_path: Path, source: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(BelegError, match=message) as raised:
        list(read_rows(source))
    assert raised.value.way_out


def test_limit(tmp_path: Path) -> None:
    path = lines(tmp_path, QCA, {**QCA, "query": "Und jetzt?"}, "{broken")
    assert [row.question for row in read_rows(path, limit=1)] == ["Wie viel?"]
    assert list(read_rows(path, limit=0)) == []
    assert len(list(read_rows(path, limit=2))) == 2, "what lies behind the limit is not looked at"
    with pytest.raises(ValueError, match="negative"):
        read_rows(path, limit=-1)


def test_several_sources(tmp_path: Path) -> None:
    one, two = lines(tmp_path, QCA), lines(tmp_path, DPR, DPR, name="two.jsonl")
    assert [Path(row.origin.split(",")[0]).name for row in read_all([one, two])] == ["rows.jsonl", "two.jsonl", "two.jsonl"]
    assert len(read_all([one, two], limit=1)) == 2
    broken = lines(tmp_path, {**QCA, "query": ""}, name="broken.jsonl")
    with pytest.raises(BelegError, match=r"No question to be had from .*broken\.jsonl"):
        read_all([broken], on_problem=lambda problem: None)
    with pytest.raises(BelegError, match="nothing"):
        read_all([])


def test_repairs_are_told_and_never_raised(tmp_path: Path) -> None:
    record = {**FLAT, "answers": {"text": ["28 Euro"], "answer_start": [60]}}
    rows, [problem] = told(lines(tmp_path, record))
    assert rows[0].answers == only(lines(tmp_path, record)).answers == (Answer("28 Euro", 62),)
    assert (problem.kind, problem.fatal, problem.field) == ("repaired", False, "answers.0")


def test_a_huge_line(tmp_path: Path) -> None:
    huge = "ä😀 " * 1_000_000
    row = only(lines(tmp_path, {**QCA, "context": huge + TEXT}))
    assert row.answers == (Answer("28 Euro", 3_000_000 + 62),)


def test_records_can_be_shuffled_and_taken(tmp_path: Path) -> None:
    path = lines(tmp_path, *({**QCA, "query": str(number)} for number in range(20)), "{")
    records = stream(path)
    asked = [example["record"]["query"] for example in records.take(20)]
    mixed = [example["record"]["query"] for example in records.shuffle(seed=1, buffer_size=30) if example["record"]]
    assert asked == [str(number) for number in range(20)]
    assert mixed != asked
    assert sorted(mixed) == sorted(asked)
    assert [example["problem"].origin for example in records if example["problem"]] == [f"{path}, line 21"]


def test_language(tmp_path: Path) -> None:
    english = "The congestion charge and tolls are reimbursed, but parking fines are not."
    for more, language in [
        ({}, "de"),
        ({"context": english}, "en"),
        ({"language": "FR"}, "fr"),
        ({"language": "German"}, "de"),
        ({"language": "und"}, "und"),
        ({"context": "12", "query": "Wie viele Urlaubstage habe ich im Jahr?"}, "de"),
        ({"context": "12", "query": "?"}, "und"),
    ]:
        assert only(lines(tmp_path, {**QCA, "answer": [], **more})).language == language


class Hub:
    """Stands in for `datasets.load_dataset`."""

    def __init__(self, records: list[dict[str, Any]], error: Exception | None = None) -> None:
        self.records = records
        self.error = error
        self.asked: list[tuple[str, str]] = []

    def __call__(self, name: str, *, split: str, streaming: bool) -> Iterator[dict[str, Any]]:
        assert streaming
        self.asked.append((name, split))
        yield from self.records
        if self.error:
            raise self.error


def test_the_hub_is_streamed_split_by_split() -> None:
    hub = Hub([DPR, QCA])
    assert list(open_hub("deepset/germandpr", hub)) == [(1, DPR), (2, QCA)]
    list(open_hub("deepset/germandpr:test", hub))
    assert hub.asked == [("deepset/germandpr", "train"), ("deepset/germandpr", "test")]


@pytest.mark.parametrize("error", [ConnectionError(), ValueError("Bad split"), RuntimeError("no scripts\nmore"), KeyError("x")])
def test_a_hub_that_fails_is_told_with_a_way_out(error: Exception) -> None:
    with pytest.raises(BelegError, match="The data set deepset/germandpr cannot be read from the hub") as raised:
        list(open_hub("deepset/germandpr:dev", Hub([DPR], error)))
    assert "download" in raised.value.way_out
    assert "\n" not in raised.value.message


def test_being_offline_is_told_as_such() -> None:
    with pytest.raises(OfflineError):
        list(open_hub("deepset/germandpr", Hub([], OfflineError("offline is set"))))
