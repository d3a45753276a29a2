"""Read RTF: paragraphs, headings by their style, list items, table rows, notes behind the paragraph that calls them.

Knows nothing of fonts but their character sets. The libraries for RTF know no headings and take all of a table or a
list for text, hence a reader of its own. Control words: Rich Text Format Specification 1.9.1.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, replace

from retriever.load.normal import Extract, Unreadable, Writer, normalise, one_line

__all__ = ["read"]

_TOKEN = re.compile(
    rb"\\(?:(?P<word>[a-zA-Z]{1,32})(?P<number>-?\d{1,9})? ?|'(?P<hex>[0-9a-fA-F]{2})|(?P<symbol>.))"
    rb"|(?P<brace>[{}])|(?P<text>[^\\{}\r\n]+)|[\r\n]+",
    re.DOTALL,
)
# Groups that hold no text of the document, beside those that say so themselves (\*).
_SKIPPED = frozenset((
    "colortbl", "filetbl", "listtable", "pict", "object", "header", "headerl", "headerr", "headerf", "footer",
    "footerl", "footerr", "footerf", "sp", "shprslt", "xe", "tc", "rxe", "private", "template", "revtbl",
    "nonesttables", "comment", "operator", "company", "category", "keywords", "doccomm", "subject", "manager",
    "printim", "buptim", "hlinkbase", "version", "vern", "annotation",
))  # fmt: skip
_CHARACTERS = {
    "tab": "\t", "line": "\n", "emdash": "—", "endash": "–", "lquote": "‘", "rquote": "’", "ldblquote": "“",
    "rdblquote": "”", "bullet": "•", "emspace": " ", "enspace": " ", "qmspace": " ",
}  # fmt: skip
_SYMBOLS = {"~": "\xa0", "_": "\u2011", "{": "{", "}": "}", "\\": "\\"}
_CHARSETS = {
    77: "mac_roman", 128: "cp932", 129: "cp949", 134: "gbk", 136: "big5", 161: "cp1253", 162: "cp1254", 163: "cp1258",
    177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874", 238: "cp1250", 255: "cp850",
}  # fmt: skip
_HEADING_STYLE = re.compile(r"(?:heading|überschrift) ([1-6])\b|(titel|title)$", re.IGNORECASE)
_HELD = {
    "stylesheet": "style", "fonttbl": "font", "footnote": "note", "shptxt": "note", "listtext": "mark", "pntext": "mark",
    "title": "title", "author": "author", "revtim": "changed", "creatim": "made",
}  # fmt: skip
_SIGN = re.compile(r"\w")
_ENDS_PARAGRAPH = frozenset(("par", "sect", "page", "column"))
_TIME = {"yr": 4, "mo": 2, "dy": 2}


@dataclass(slots=True)
class _Group:
    """What holds up to the closing brace.

    Attributes:
        holds: what its text is, by `_HELD`; a part of the document if empty.
        optional: the next word, unless it is known here, makes all of it skipped.
    """

    holds: str = ""
    optional: bool = False
    skipped: bool = False
    hidden: bool = False
    deleted: bool = False
    font: int = 0
    unicode_length: int = 1  # characters that stand in for a Unicode one, for readers that know none
    style: int = 0
    outline: int = 0
    in_table: bool = False


def read(data: bytes) -> Extract:
    r"""Read an RTF file; it has no pages, since they are made when it is printed.

    Raises:
        Unreadable: if it is no RTF, or ends before its groups do.

    >>> read(rb"{\rtf1{\stylesheet{\s1 heading 1;}}\s1 Urlaub\par\pard Er betr\'e4gt 30 Tage.\par}").text
    'Urlaub\n\nEr beträgt 30 Tage.'
    """
    start = data.find(b"{\\rtf")
    if start < 0 or data[:start].strip(b"\xef\xbb\xbf \t\r\n"):
        raise Unreadable("it is no RTF", way_out="Save it as RTF or .docx again.")
    reader = _Reader(data)
    reader.run(start)
    metadata = {"author": one_line(reader.said.get("author", "")), "date": reader.date()}
    return Extract(
        reader.writer.text(),
        headings=tuple(reader.writer.headings),
        title=one_line(reader.said.get("title", "")) or None,
        metadata={key: value for key, value in metadata.items() if value},
    )


class _Reader:
    """One pass over the file; open groups lie on a list, not on the stack of calls."""

    def __init__(self, data: bytes) -> None:
        self.writer = Writer()
        self.said: dict[str, str] = {}  # of the document
        self._data = data
        self._group = _Group()
        self._open: list[_Group] = []
        self._bytes = bytearray()  # not decoded yet: a character may take two
        self._skip = 0
        self._codec = "cp1252"
        self._charsets: dict[int, str] = {}
        self._levels: dict[int, int] = {}  # of headings, by the number of their style
        self._held: dict[str, list[str]] = {}
        self._cells: list[str] = []
        self._notes: list[str] = []
        self._run = ""  # what was written last: rows and items that follow each other stand close

    def run(self, start: int) -> None:
        position = start
        while token := _TOKEN.match(self._data, position):
            position = token.end()
            if token["text"] is not None:
                self._take(token["text"])
            elif token["hex"] is not None:
                self._take(bytes.fromhex(token["hex"].decode()))
            elif token["brace"] == b"{":
                self._decode()
                self._open.append(self._group)
                self._group = replace(self._group, optional=False)
            elif token["brace"] == b"}":
                self._decode()
                self._close()
                if not self._open:
                    self._end_paragraph()
                    return
            elif token["word"] is not None:
                self._decode()
                number = None if token["number"] is None else int(token["number"])
                if token["word"] == b"bin":
                    position += max(0, number or 0)
                self._word(token["word"].decode(), number)
            elif token["symbol"] is not None:
                self._decode()
                self._symbol(token["symbol"].decode("latin-1"))
        raise Unreadable("the RTF ends in its middle", way_out="Get it again, or open it in Word and save it anew.")

    def date(self) -> str:
        return self.said.get("changed", self.said.get("made", ""))

    def _take(self, data: bytes) -> None:
        left_out = min(self._skip, len(data))
        self._skip -= left_out
        self._bytes += data[left_out:]

    def _decode(self) -> None:
        if self._bytes:
            codec = self._charsets.get(self._group.font, self._codec)
            self._put(self._bytes.decode(codec, "replace"))
            self._bytes.clear()

    def _put(self, text: str) -> None:
        group = self._group
        if not (group.skipped or group.hidden or group.deleted):
            self._held.setdefault(group.holds, []).append(text)

    def _pop(self, holds: str) -> str:
        # Characters beyond the first 65,536 are written as two halves.
        return "".join(self._held.pop(holds, ())).encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _close(self) -> None:
        self._skip = 0
        closed = self._group
        if self._open:
            self._group = self._open.pop()
        if closed.holds == "style":
            name = _HEADING_STYLE.fullmatch(one_line(self._pop("style")).rstrip(";"))
            level = int(name[1] or 1) if name else closed.outline
            if level and closed.style:
                self._levels[closed.style] = level
        elif closed.holds != self._group.holds and closed.holds != "mark":
            text = self._pop(closed.holds)
            if closed.holds == "note":
                self._notes.append(text)
            elif text:
                self.said[closed.holds] = text

    def _symbol(self, symbol: str) -> None:
        if symbol == "*":
            self._group.optional = True
        elif symbol in "\r\n":
            self._end_paragraph()
        else:
            self._put(_SYMBOLS.get(symbol, ""))

    def _word(self, word: str, number: int | None) -> None:
        group = self._group
        if group.optional:
            group.optional = False
            group.skipped = group.skipped or word != "shpinst"
        if word in _SKIPPED:
            group.skipped = True
        elif word in _HELD:
            group.holds = _HELD[word]
        elif word in _CHARACTERS:
            self._put(_CHARACTERS[word])
        elif word in _TIME and group.holds in {"changed", "made"}:
            self._put(f"{number or 0:0{_TIME[word]}}")
        elif word == "u" and number is not None:
            self._put(chr(number % 0x10000))
            self._skip = group.unicode_length
        elif not group.skipped:
            self._layout(word)
            self._property(word, number)

    def _property(self, word: str, number: int | None) -> None:
        group = self._group
        match word:
            case "uc":
                group.unicode_length = max(0, number or 0)
            case "f":
                group.font = number or 0
            case "fcharset":
                self._charsets.update({group.font: _CHARSETS[number]} if number in _CHARSETS else {})
            case "ansicpg":
                self._codec = _codec(f"cp{number}")
            case "mac":
                self._codec = "mac_roman"
            case "v":
                group.hidden = number != 0
            case "deleted":
                group.deleted = number != 0
            case "plain":
                group.hidden = group.deleted = False
            case "s":
                group.style = number or 0
            case "outlinelevel":
                group.outline = (number or 0) + 1 if (number or 0) < 9 else 0
            case "intbl":
                group.in_table = True
            case "pard":
                group.style = group.outline = 0
                group.in_table = False

    def _layout(self, word: str) -> None:
        if self._group.holds:
            self._put("\n" if word in _ENDS_PARAGRAPH else "")
        elif word == "cell":
            self._cells.append(one_line(self._pop("")))
        elif word == "row":
            self._write(" | ".join(cell for cell in self._cells if cell), run="rows")
            self._cells.clear()
        elif word in _ENDS_PARAGRAPH and self._group.in_table:
            self._put(" ")
        elif word in _ENDS_PARAGRAPH:
            self._end_paragraph()

    def _end_paragraph(self) -> None:
        mark, text = one_line(self._pop("mark")), self._pop("")
        level = self._levels.get(self._group.style, self._group.outline)
        if level:
            self._write(one_line(text), level=level)
        elif mark:
            self._write(f"{mark if _SIGN.search(mark) else '-'} {normalise(text).strip()}", run="items")
        else:
            self._write("\n".join(line.strip() for line in normalise(text).split("\n")))
        for note in self._notes:
            self._write(one_line(note))
        self._notes.clear()

    def _write(self, block: str, *, level: int = 0, run: str = "") -> None:
        block = normalise(block)
        if block:
            self.writer.add(block, gap="\n" if run and run == self._run else "\n\n", level=level)
            self._run = run


def _codec(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "cp1252"
