from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from isochrone.answers.curated.entry import Entry
from isochrone.answers.curated.sheet import SheetError, read, to_csv, to_jsonl

FULL = Entry(
    id="hours-1",
    phrasings=("When are you open?", '营业时间是几点, "今天"?', "opening hours in {city}"),
    answer='Line 1, with "quotes"\nline 2; 中文\r\n\n{phone}\t',
    tenants=("team-a", "team-b"),
    models=("org/model-1",),
    language="zh-Hans",
    expires="2026-12-31",
    variables={"city": ("Rome", "New York"), "phone": ("=1+2",)},
    version=7,
)
PLAIN = Entry(id="b", phrasings=("Who are you?",), answer="An edge.")


def entries(content: bytes | str, name: str = "faq.csv") -> list[Entry]:
    return [row.entry for row in read(content.encode() if isinstance(content, str) else content, name=name)]


def test_csv_comes_back_as_it_was_written() -> None:
    written = entries(to_csv([FULL, PLAIN]))
    assert written == [Entry(**{name: getattr(FULL, name) for name in FULL.__struct_fields__} | {"version": 1}), PLAIN]


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(1)", "'=1", "'"])
def test_no_cell_of_a_table_is_a_formula_and_all_come_back(start: str) -> None:
    entry = Entry(id="a", phrasings=(f"{start} what?",), answer=f"{start}|cmd")
    written = to_csv([entry])
    cells = [cell for row in csv.reader(io.StringIO(written.decode("utf-8-sig"), newline="")) for cell in row]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@")]
    assert [row.entry for row in read(written, name="faq.csv")] == [entry]


def test_jsonl_comes_back_as_it_was_written() -> None:
    assert entries(to_jsonl([FULL, PLAIN]), "faq.jsonl") == [FULL, PLAIN]


def test_csv_begins_with_the_mark_by_which_spreadsheets_know_utf_8() -> None:
    assert to_csv([]).startswith(b"\xef\xbb\xbfid,phrasings,answer,")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_table_is_read_as_spreadsheets_of_any_country_write_it(delimiter: str, mark: str, end: str) -> None:
    lines = ["ID;Answer;phrasings;;", 'b;An edge.;"Who are you?";;', ";;;;", ""]
    assert entries(mark + end.join(lines).replace(";", delimiter)) == [PLAIN]


def test_line_that_names_the_separator_is_understood_and_counted() -> None:
    assert entries("sep=;\r\nid;phrasings;answer\r\nb;Who are you?;An edge.\r\n") == [PLAIN]
    with pytest.raises(SheetError, match=r"^faq.csv:3: answer: is empty$"):
        entries("sep=;\r\nid;phrasings;answer\r\nb;Who are you?;\r\n")


def test_cell_holds_one_phrasing_a_line_and_names_between_commas() -> None:
    (entry,) = entries('id,phrasings,answer,tenants\nb,"Who?\n\n Who are you? \r\n",I.,"team-a, team-b,"\n')
    assert entry.phrasings == ("Who?", "Who are you?")
    assert entry.tenants == ("team-a", "team-b")


HEAD = "id,phrasings,answer,variables\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "faq.csv:1: the column 'id' is missing; the first line names the columns"),
        ("id,answer\n", "faq.csv:1: the column 'phrasings' is missing; the first line names the columns"),
        ("id,phrasings,answer,answer\n", "faq.csv:1: the column 'answer' stands twice"),
        ("id,question\n", "faq.csv:1: there is no column 'question'; there are id, phrasings, answer,"),
        (HEAD + 'a,"x\ny",z\nb,,z\n', "faq.csv:4: phrasings: there is none"),
        (HEAD + "a,x,y,,too much\n", "faq.csv:2: 'too much' stands in a column without a name"),
        (HEAD + "a,x,y\n\na,z,y\n", "faq.csv:4: id: 'a' stands already on line 2"),
        (HEAD + "a,x,{city}\n", "faq.csv:2: answer: {city} is unknown"),
        (HEAD + "a,x,y,city Rome\n", "faq.csv:2: variables: 'city Rome': write it as name = value | value"),
        (HEAD + 'a,x,"y\n', "faq.csv:2: no CSV: unexpected end of data"),
        (
            "id,phrasings,answer\na,b,时间".encode("gbk"),
            'faq.csv:2:6: not UTF-8 text (byte 26): in a spreadsheet, save as "CSV UTF-8"',
        ),
        ("\ufeffid\n".encode() + b"\xff", "faq.csv:2:1: not UTF-8 text (byte 6): "),
        (HEAD + 'a,x,"y\nz\x00"\n', "faq.csv:3:2: the control character U+0000; take it out"),
        (HEAD + "a,x,y\x1c\n", "faq.csv:2:6: the control character U+001C; take it out"),
        (
            HEAD + 'a,{c},y,"c = Rome\nc = Oslo"\n',
            "faq.csv:2: variables: 'c' stands twice; write its values in one line",
        ),
    ],
    ids=str,
)
def test_mistake_in_a_table_is_named_with_line_and_column(content: bytes | str, message: str) -> None:
    with pytest.raises(SheetError) as caught:
        entries(content)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


GOOD = '{"id": "a", "phrasings": ["x"], "answer": "y"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + "\n{", "faq.jsonl:3: no JSON: "),
        (GOOD + "[]", "faq.jsonl:2: Expected object, got array"),
        (GOOD + '{"id": 1}', "faq.jsonl:2: id: Expected str, got int"),
        (GOOD + '{"id": "b"}', "faq.jsonl:2: Object missing required field phrasings"),
        (GOOD + '{"id": "b", "phrasings": ["x", 3], "answer": ""}', "faq.jsonl:2: phrasings[1]: Expected str, got int"),
        (GOOD + '{"id": "b", "question": "x"}', "faq.jsonl:2: Object contains unknown field question"),
        (GOOD + GOOD, "faq.jsonl:2: id: 'a' stands already on line 1"),
        (b"\xff", "faq.jsonl:1:1: not UTF-8 text (byte 0)"),
        (GOOD + GOOD.replace("x", "a\\u0000"), "faq.jsonl:2: phrasings: 'a\\x00' has the control character U+0000 at"),
        (
            '{"id": "a", "phrasings": ["{c}"], "answer": "y", "variables": {"c": ["1"], "c": ["2"]}}',
            "faq.jsonl:1: 'c' stands twice in one object",
        ),
        (GOOD.replace('"answer"', '"answer": "z", "answer"'), "faq.jsonl:1: 'answer' stands twice in one object"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_mistake_in_jsonl_is_named_with_line_and_field(content: bytes | str, message: str) -> None:
    with pytest.raises(SheetError) as caught:
        entries(content, "faq.jsonl")
    assert str(caught.value).startswith(message)


def test_file_of_another_kind_is_refused() -> None:
    with pytest.raises(SheetError, match=r"^faq.xlsx: the name must end in .csv or .jsonl$"):
        entries(b"", "faq.xlsx")


def test_jsonl_may_hold_unicode_line_separators_in_a_text() -> None:
    odd: dict[str, Any] = {"id": "a", "phrasings": ("x",), "answer": "one\u2028two\x85three\x0b"}
    assert entries(to_jsonl([Entry(**odd)]), "a.jsonl") == [Entry(**odd)]
    assert entries(to_csv([Entry(**odd)]), "a.csv") == [Entry(**odd)]
