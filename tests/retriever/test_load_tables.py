"""CSV and the rows of tables: each line can be read, found and quoted without the others."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.load import table
from retriever.load.normal import normalise
from retriever.load.rows import rows_as_text
from retriever.load.text import NotText


def lines(source: str) -> list[str]:
    return table.read(source.encode()).text.split("\n")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Artikel;Preis\nWB-20417;12,50 €\n", "Artikel: WB-20417 | Preis: 12,50 €"),
        ("item,price\nWB-20417,12.50\n", "item: WB-20417 | price: 12.50"),
        ('item,price\nWB-20417,"12,50 €"\n', "item: WB-20417 | price: 12,50 €"),
        ("Artikel\tPreis\tText\nWB-20417\t12,50\ta;b, c\n", "Artikel: WB-20417 | Preis: 12,50 | Text: a;b, c"),
        ("Artikel|Preis\nWB-20417|12,50\n", "Artikel: WB-20417 | Preis: 12,50"),
        ("sep=,\r\nid,note\r\n1,a;b;c\r\n", "id: 1 | note: a;b;c"),
        ('Name;Notiz;Zahl\nX;"eins\nzwei ""drei""; vier";3\n', 'Name: X | Notiz: eins zwei "drei"; vier | Zahl: 3'),
        ('id, name, note\n1, "Weber, Anna", x\n', "id: 1 | name: Weber, Anna | note: x"),
        ("\ufeffA;Zahl\nx;1\n", "A: x | Zahl: 1"),
        ("Preis:;Ort:;Tag:\n1;Köln;2024-05-03\n", "Preis: 1 | Ort: Köln | Tag: 2024-05-03"),
    ],
)
def test_a_row_names_its_columns_whatever_parts_them(source: str, expected: str) -> None:
    assert lines(source) == [expected]


def test_decimal_commas_are_no_cells() -> None:
    assert lines("12,50;13,20;14,10\n1,5;2,5;3,5\n") == ["12,50 | 13,20 | 14,10", "1,5 | 2,5 | 3,5"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_table_is_read_in_its_encoding(encoding: str) -> None:
    assert table.read("Größe;Preis\nXL;12,50 €\n".encode(encoding)).text == "Größe: XL | Preis: 12,50 €"


def test_a_quotation_mark_that_nobody_closes_costs_no_row() -> None:
    source = 'Artikel;Maß;Ort\nRad;"19 Zoll;A\nBand;7;B\nRolle;19" hoch;C\n' + "Seil;1;D\n" * 5
    assert (
        lines(source)[1:]
        == ["Artikel: Band | Maß: 7 | Ort: B", 'Artikel: Rolle | Maß: 19" hoch | Ort: C']
        + ["Artikel: Seil | Maß: 1 | Ort: D"] * 5
    )


def test_text_with_a_comma_here_and_there_is_one_column() -> None:
    source = "Nur Text, mit Komma\nund noch einer\nohne Ende\nund hier, und da, ist Schluss.\n"
    assert lines(source) == source.strip().split("\n")


def test_pages_are_ranges_of_rows() -> None:
    extract = table.read(("Nr;Name\n" + "".join(f"{number};N{number}\n" for number in range(401))).encode())
    assert [extract.text[start:].split("\n")[0] for start in extract.pages] == [
        "Nr: 0 | Name: N0",
        "Nr: 200 | Name: N200",
        "Nr: 400 | Name: N400",
    ]


def test_a_cell_larger_than_the_library_takes_is_read() -> None:
    assert len(lines("Nr;Text\n1;" + "x" * 200_000)[0]) == len("Nr: 1 | Text: ") + 200_000
    assert len(lines("Nr;Zahl\na;" + "1" * 200_000 + "x\n" * 3)[1]) == len("a | ") + 200_001


@pytest.mark.parametrize("data", [b"", b"\n\n", b";;;\n;;;\n", b'""'])
def test_a_table_without_anything_is_empty(data: bytes) -> None:
    assert table.read(data).text == ""


def test_a_table_with_a_null_byte_is_no_text() -> None:
    with pytest.raises(NotText):
        table.read(b"a;b\n1;\0\n")


@given(st.binary(max_size=200) | st.text(alphabet='a1;,|\t"\n\r\u20ac=:', max_size=80).map(str.encode))
def test_any_bytes_are_a_table_or_no_text(data: bytes) -> None:
    try:
        extract = table.read(data)
    except NotText:
        return
    assert normalise(extract.text) == extract.text


@given(st.lists(st.lists(st.text(alphabet="abc12", min_size=1, max_size=5), min_size=3, max_size=3), min_size=1, max_size=8))
def test_every_value_of_a_table_is_in_its_text(rows: list[list[str]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=";").writerows(rows)
    text = table.read(buffer.getvalue().encode()).text
    assert all(cell in text for row in rows for cell in row)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # Years name columns as well as words do.
        (["|2022|2023", "Nord|12,5|13", "Süd|1200|14"], ["Nord | 2022: 12,5 | 2023: 13", "Süd | 2022: 1200 | 2023: 14"]),
        # What stands above a table stays, and is not taken for its header.
        (["Preise 2024", "", "Artikel|Preis", "Rad|1"], ["Preise 2024", "Artikel: Rad | Preis: 1"]),
        # No header: numbers, addresses, identifiers as below, the same word again, the same name twice.
        (["Müller|030 123|R 12", "Weber|030 124|R 13"], ["Müller | 030 123 | R 12", "Weber | 030 124 | R 13"]),
        (["a@example.org|Anna|Köln", "b@example.org|Bert|Ulm"], ["a@example.org | Anna | Köln", "b@example.org | Bert | Ulm"]),
        (["WB-1|Band|Halle", "WB-2|Rolle|Hof"], ["WB-1 | Band | Halle", "WB-2 | Rolle | Hof"]),
        (["Band|ja|rot", "Rolle|ja|blau"], ["Band | ja | rot", "Rolle | ja | blau"]),
        (["Ort|Ort|Tag", "Köln|Ulm|1"], ["Ort | Ort | Tag", "Köln | Ulm | 1"]),
        (["Name|Wendelbruck", "Sitz|Lippstadt"], ["Name | Wendelbruck", "Sitz | Lippstadt"]),
        # Ragged, repeated, empty.
        (["A|B|C", "1", "1|2|3|4", "", "A|B|C", "|2"], ["A: 1", "A: 1 | B: 2 | C: 3 | 4", "B: 2"]),
        (["A|B|C"], ["A | B | C"]),
        ([], []),
        (["", " "], []),
    ],
)
def test_a_header_is_told_by_what_stands_below_it(rows: list[str], expected: list[str]) -> None:
    assert rows_as_text([row.split("|") for row in rows]) == expected


def test_the_caller_may_know_whether_there_is_a_header() -> None:
    rows = [["Name", "Ort"], ["Weber", "Köln"]]
    assert rows_as_text(rows, header=True) == ["Name: Weber | Ort: Köln"]
    assert rows_as_text([["A", "B", "C"], ["1", "2", "3"]], header=False) == ["A | B | C", "1 | 2 | 3"]
    assert rows_as_text([["A", "B"], ["A", "B"]], header=True) == ["A | B"]
    assert rows_as_text([], header=True) == []
