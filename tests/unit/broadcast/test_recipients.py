"""Lists of recipients in every form that users have."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import tracemalloc
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import jinja2
import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import SandboxedEnvironment

from airflow_provider_wassly.airflow_compat import object_storage
from airflow_provider_wassly.broadcast import json_array
from airflow_provider_wassly.broadcast import recipients as module
from airflow_provider_wassly.broadcast.recipients import NUMBER, Recipient, RecipientList, Row, digest, mark, survey
from airflow_provider_wassly.client import WasslyInvalidMessage
from tests.support.memory import in_own_process, traced
from tests.support.storages import Restricted, attach

ANNA = "+447700900001"
OMAR = "+447700900002"


@pytest.fixture
def storage() -> Iterator[Any]:
    found = MemoryFileSystem()
    attach("memory", None, found)
    found.store.clear()
    yield found
    found.store.clear()


class Files:
    """Creates files to read; each test gets a new one."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "list.txt"

    def rows(self, content: str | bytes) -> list[Row]:
        self.path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read(self.path)

    def values(self, content: str | bytes) -> list[dict[str, Any]]:
        rows = self.rows(content)
        assert [row.error for row in rows] == [None] * len(rows)
        return [dict(row.values) for row in rows]

    def refusal(self, content: str | bytes) -> str:
        with pytest.raises(WasslyInvalidMessage) as raised:
            self.rows(content)
        assert raised.value.field == "recipients"
        return str(raised.value)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def read(source: Any, conn_id: str | None = None) -> list[Row]:
    return [row for rows in RecipientList(source, conn_id).chunks() for row in rows]


def refusal(source: Any) -> str:
    with pytest.raises(WasslyInvalidMessage) as raised:
        read(source)
    assert raised.value.field == "recipients"
    return str(raised.value)


# CSV


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_a_csv_file_of_any_spreadsheet(files: Files, delimiter: str, newline: str, bom: str) -> None:
    lines = [("contact_name", NUMBER, "text"), ("Anna", ANNA, "a, b; c | d\te"), ("عمر", OMAR, "")]
    quoted = newline.join(delimiter.join(f'"{cell}"' for cell in line) for line in lines)
    expected = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    assert files.values(bom + quoted) == expected
    assert files.values(bom + quoted + newline) == expected


def test_a_list_of_numbers_alone(files: Files) -> None:
    assert files.values(f"{NUMBER}\n{ANNA}\n{OMAR}\n") == [{NUMBER: ANNA}, {NUMBER: OMAR}]


def test_other_delimiters_inside_of_column_names_do_not_mislead(files: Files) -> None:
    header = f'"name, first";"street, town";{NUMBER}'
    expected = {"name, first": "Anna", "street, town": "High St", NUMBER: ANNA}
    assert files.values(f"{header}\nAnna;High St;{ANNA}\n") == [expected]


def test_names_of_columns_are_taken_without_outer_space_and_cells_as_they_are(files: Files) -> None:
    assert files.values(f" name , {NUMBER}\n Anna ,{ANNA}\n") == [{"name": " Anna ", NUMBER: ANNA}]


def test_blank_lines_do_not_count(files: Files) -> None:
    text = f"\n  \n{NUMBER},name\n\n{ANNA},Anna\n   \n,\n , \n{OMAR},Omar\n\n"
    assert [(row.position, row.number) for row in files.rows(text)] == [(1, ANNA), (2, OMAR)]


def test_a_cell_may_hold_line_breaks_and_quotes(files: Files) -> None:
    text = f'{NUMBER},text\n{ANNA},"Dear ""Anna"",\n\nbye"\n{OMAR},x\n'
    assert [values["text"] for values in files.values(text)] == ['Dear "Anna",\n\nbye', "x"]


def lines(rows: list[Row]) -> list[tuple[int | None, str]]:
    return [(row.line, row.where) for row in rows]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_row_of_a_csv_file_knows_its_line_as_an_editor_counts(files: Files, newline: str) -> None:
    text = f'\n\n{NUMBER},text\n{ANNA},"Dear Anna,\n\nbye"\n\n{OMAR},x\n{OMAR},too,long\n'
    assert lines(files.rows(text.replace("\n", newline))) == [
        (4, "row 1, line 4"),
        (8, "row 2, line 8"),
        (9, "row 3, line 9"),
    ]


def test_a_row_of_a_json_lines_file_knows_its_line_and_no_other_is_named(files: Files) -> None:
    good = json.dumps({NUMBER: ANNA})
    rows = files.rows(f"\n{good}\n\n{{]\n[]\n{good}")
    assert lines(rows) == [
        (2, "row 1, line 2"),
        (4, "row 2, line 4"),
        (5, "row 3, line 5"),
        (6, "row 4, line 6"),
    ]
    assert rows[1].error == "not valid JSON: Expecting property name enclosed in double quotes, column 2"


def test_a_row_that_is_in_no_file_has_no_line() -> None:
    assert lines(read([{NUMBER: ANNA}, {NUMBER: OMAR}])) == [(None, "row 1"), (None, "row 2")]


def test_a_row_that_is_too_short_lacks_the_last_columns(files: Files) -> None:
    text = f"{NUMBER},name,town\n{ANNA},Anna\n"
    assert files.values(text) == [{NUMBER: ANNA, "name": "Anna"}]


def test_a_row_that_ends_before_the_number_is_wrong_and_the_others_are_not(files: Files) -> None:
    rows = files.rows(f"name,{NUMBER}\nAnna\nOmar,{OMAR}\n")
    assert [row.error for row in rows] == [f"ends before the column {NUMBER}", None]


def test_a_row_that_is_too_long_is_wrong_and_the_others_are_not(files: Files) -> None:
    rows = files.rows(f"{NUMBER},name\n{ANNA},Smith, Anna\n{OMAR},Omar\n")
    assert [row.error for row in rows] == ["has 3 fields, but the header has 2", None]
    assert rows[0].number == ANNA


def test_a_delimiter_at_the_end_of_each_line_makes_no_column(files: Files) -> None:
    assert files.values(f"{NUMBER};name;\n{ANNA};Anna;\n") == [{NUMBER: ANNA, "name": "Anna"}]


def test_a_header_without_the_number(files: Files) -> None:
    assert files.refusal("phone,name\n+447700900001,Anna\n") == (
        f"recipients: {files.path} has no column {NUMBER}; its first line must name the columns, but holds: phone, name"
    )


def test_a_file_without_a_header_does_not_show_its_first_number_in_the_error(files: Files) -> None:
    text = files.refusal(f"{ANNA}\n{OMAR}\n")
    assert text == f"recipients: {files.path} has no header line with a column {NUMBER}"


def test_a_file_without_a_header_does_not_show_its_first_row_in_the_error(files: Files) -> None:
    text = files.refusal(f"Anna,{ANNA}\nOmar,{OMAR}\n")
    assert f"{files.path} has no column {NUMBER}; its first line must name the columns" in text
    assert ANNA not in text


@pytest.mark.parametrize("column", ["name", NUMBER])
def test_a_column_that_is_there_twice(files: Files, column: str) -> None:
    header = f"{NUMBER},name,{column}"
    assert files.refusal(f"{header}\n{ANNA},Anna,x\n") == f"recipients: {files.path} has the column {column} twice"


def test_quotes_that_do_not_fit(files: Files) -> None:
    assert files.refusal(f'\n\n{NUMBER},name\n{ANNA},"Anna" Smith\n').startswith(
        f"recipients: {files.path}, line 4 is not CSV: "
    )


@pytest.mark.parametrize("content", ["x" * 200_000, f"{NUMBER},{'x' * 200_000}\n{ANNA},Anna\n"])
def test_a_first_line_that_is_too_long_to_be_one(files: Files, content: str) -> None:
    assert ", line 1 is not CSV: field larger than field limit" in files.refusal(content)


def test_a_quote_that_is_never_closed_takes_nobody_into_a_text(files: Files) -> None:
    assert "is not CSV: unexpected end of data" in files.refusal(f'{NUMBER},name\n{ANNA},"Anna\n{OMAR},Omar\n')
    rest = "".join(f"{OMAR},Omar\n" for _ in range(10_000))
    assert "is not CSV: field larger than field limit" in files.refusal(f'{NUMBER},name\n{ANNA},"Anna\n{rest}')


@pytest.mark.parametrize("cells", [f"{ANNA};Anna;;", f"{ANNA};Anna; ;\t;", f"{ANNA};Anna"])
def test_empty_cells_at_the_end_of_a_row_are_nothing(files: Files, cells: str) -> None:
    assert files.values(f"{NUMBER};name\n{cells}\n") == [{NUMBER: ANNA, "name": "Anna"}]
    assert files.values(f"{NUMBER};name;;\n{cells}\n") == [{NUMBER: ANNA, "name": "Anna"}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line", ["sep={}\n", "SEP={}\r\n", '"sep={}"\n', "\nsep={}\n\n", "\ufeffsep={}\r\n"])
def test_a_line_with_the_delimiter_comes_before_the_header(files: Files, delimiter: str, line: str) -> None:
    # More commas than other delimiters, to mislead a guess.
    text = line.format(delimiter) + delimiter.join([NUMBER, '"a,b,c;d;e|f|g"']) + "\n" + delimiter.join([ANNA, "x"])
    assert files.values(text) == [{NUMBER: ANNA, "a,b,c;d;e|f|g": "x"}]
    assert files.rows(text)[0].line == 1 + text.count("\n")


def test_nothing_after_the_line_with_the_delimiter(files: Files) -> None:
    assert files.rows("sep=;") == files.rows("sep=;\n") == []


@pytest.mark.parametrize("bom", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
@pytest.mark.parametrize("content", ["{0}\t{1}\r\n{2}\tعمر\r\n", '[{{"{0}": "{2}", "{1}": "عمر"}}]'])
def test_utf_16_with_a_byte_order_mark(files: Files, bom: bytes, content: str) -> None:
    # What Excel calls Unicode text.
    encoding = "utf-16-le" if bom == codecs.BOM_UTF16_LE else "utf-16-be"
    data = bom + content.format(NUMBER, "name", OMAR).encode(encoding)
    assert files.values(data) == [{NUMBER: OMAR, "name": "عمر"}]
    assert files.refusal(data + b"x") == f"recipients: {files.path} is damaged UTF-16; save it as UTF-8"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_byte_order_mark_is_named(files: Files, encoding: str) -> None:
    assert files.refusal(f"{NUMBER}\n{ANNA}\n".encode(encoding)) == (
        f"recipients: {files.path} is not text, or UTF-16 without a byte order mark; save it as UTF-8"
    )


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "application/vnd.oasis.opendocument.spreadsheet" if name == "mimetype" else "x")
    return file.getvalue()


LIST = f"{NUMBER}\n{ANNA}\n".encode()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        # The first entry as Excel, openpyxl, LibreOffice and Google Sheets write it.
        (zipped("[Content_Types].xml"), "an Excel workbook; save the sheet as CSV (UTF-8)"),
        (zipped("docProps/app.xml"), "an Excel workbook; save the sheet as CSV (UTF-8)"),
        (zipped("_rels/.rels"), "an Excel workbook; save the sheet as CSV (UTF-8)"),
        (zipped("xl/drawings/drawing1.xml"), "an Excel workbook; save the sheet as CSV (UTF-8)"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook; save the sheet as CSV (UTF-8)"),
        (zipped("mimetype"), "an OpenDocument spreadsheet; save the sheet as CSV (UTF-8)"),
        (zipped("list.csv"), "a ZIP archive; unpack it first"),
        (gzip.compress(LIST), "compressed with gzip; unpack it first"),
        (bz2.compress(LIST), "compressed with bzip2; unpack it first"),
        (lzma.compress(LIST), "compressed with xz; unpack it first"),
        (b"\x28\xb5\x2f\xfd\x24", "compressed with zstd; unpack it first"),
        (b"PAR1\x15\x04", 'a Parquet file; read it in an upstream task that returns df.to_dict("records")'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # an archive has the time in it
)
def test_a_file_that_is_no_text_is_named(files: Files, storage: Any, content: bytes, what: str) -> None:
    assert files.refusal(content) == f"recipients: {files.path} is {what}"
    storage.pipe("/bucket/list", content)
    assert refusal("memory://bucket/list") == f"recipients: memory://bucket/list is {what}"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1256"])
def test_a_file_that_is_not_utf_8(files: Files, encoding: str) -> None:
    name = {"cp1256": "عمر"}.get(encoding, "Jürgen")
    content = f"{NUMBER},name\n{ANNA},{name}\n".encode(encoding)
    assert files.refusal(content) == f"recipients: {files.path} is not UTF-8; save it as UTF-8"


@pytest.mark.parametrize("encoding", ["utf-32-le", "utf-32-be"])
def test_utf_32_is_named(files: Files, encoding: str) -> None:
    text = f"\ufeff{NUMBER},name\n{ANNA},Anna\n"
    assert files.refusal(text.encode(encoding)) == f"recipients: {files.path} is UTF-32; save it as UTF-8"


def test_bad_utf_8_in_the_middle_of_a_long_file(files: Files) -> None:
    before = f"{NUMBER},name\n" + f"{ANNA},Anna\n" * 20_000
    assert "is not UTF-8" in files.refusal(before.encode() + b"\xff,x\n")


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=',;|\t\r\n"\0{[\ufeff\u2060'), min_size=1)
columns = st.lists(names.map(str.strip).filter(bool).filter(lambda name: name != NUMBER), unique=True, max_size=4)
# Without the markers in the cells of an unsent list, which Hypothesis finds in the package and tries.
cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\u2060"), max_size=8)


@settings(deadline=None)
@given(st.data(), columns, st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
def test_what_a_csv_writer_writes_is_read_back(
    data: st.DataObject, columns: list[str], delimiter: str, newline: str, quotes_all: bool, bom: bool
) -> None:
    place = data.draw(st.integers(0, len(columns)))
    if not columns:
        delimiter = ","  # nothing in the file indicates another one
    columns = [*columns[:place], NUMBER, *columns[place:]]
    row = st.lists(cells, min_size=len(columns), max_size=len(columns))
    rows = data.draw(st.lists(row.filter(lambda row: any(cell.strip() for cell in row)), max_size=5))
    if not quotes_all:  # Python's writer does not quote a single carriage return
        rows = [[cell.replace("\r", "x") for cell in row] for row in rows]
    text = io.StringIO(newline="")
    writer = csv.writer(
        text,
        delimiter=delimiter,
        lineterminator=newline,
        quoting=csv.QUOTE_ALL if quotes_all else csv.QUOTE_MINIMAL,
    )
    writer.writerows([columns, *rows])
    store = MemoryFileSystem()
    attach("memory", None, store)
    store.pipe("/round/trip.csv", (codecs.BOM_UTF8 if bom else b"") + text.getvalue().encode())
    found = read("memory://round/trip.csv")
    assert [row.error for row in found] == [None] * len(rows)
    assert [dict(row.values) for row in found] == [dict(zip(columns, row, strict=True)) for row in rows]
    assert [row.position for row in found] == list(range(1, len(rows) + 1))


# JSON lines


def test_json_lines(files: Files) -> None:
    expected = [{NUMBER: ANNA, "due": 12.5, "items": ["a", "b"], "name": None}, {NUMBER: OMAR, "name": "عمر"}]
    for bom in ("", "\ufeff"):
        text = bom + "\n\n".join(json.dumps(values, ensure_ascii=False) for values in expected)
        assert files.values(text) == expected


def test_a_bad_json_line_does_not_stop_the_others(files: Files) -> None:
    lines = [
        json.dumps({NUMBER: ANNA}),
        '{"contact_mobile_number": ',
        "[1, 2]",
        "true",
        '{"name": "Anna"}',
        "[" * 100_000,
        "",
        json.dumps({NUMBER: OMAR}),
    ]
    rows = files.rows("\n".join(lines))
    assert [(row.position, row.number) for row in rows if row.error is None] == [(1, ANNA), (7, OMAR)]
    errors = [row.error or "" for row in rows[1:6]]
    assert errors[0].startswith("not valid JSON: ")
    assert errors[1] == f"each recipient must be a number or a dict with {NUMBER}; got list"
    assert errors[2] == f"each recipient must be a number or a dict with {NUMBER}; got bool"
    assert errors[3] == f"{NUMBER} is missing"
    assert errors[4].startswith("not valid JSON: ")


def test_json_objects_on_several_lines_are_refused_once(files: Files) -> None:
    text = files.refusal("\n" + json.dumps({NUMBER: ANNA}, indent=2))
    assert text == (
        f"recipients: {files.path} holds a JSON object on several lines; write one object per line, or a JSON array"
    )


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("around", ["{}", "\ufeff\n {}\n\n"])
def test_a_json_array(files: Files, indent: int | None, around: str) -> None:
    expected = [{NUMBER: ANNA, "due": 12.5, "items": [{}, "]"], "name": None}, {NUMBER: OMAR, "name": "عمر"}]
    assert files.values(around.format(json.dumps(expected, indent=indent, ensure_ascii=False))) == expected
    assert files.values(around.format(json.dumps([ANNA, OMAR], indent=indent))) == [{NUMBER: ANNA}, {NUMBER: OMAR}]
    assert files.rows(around.format(json.dumps([], indent=indent))) == []


def test_a_row_of_a_json_array_knows_its_line(files: Files) -> None:
    text = f'\n[ "{ANNA}",\n\n{{"{NUMBER}":\n"{OMAR}"\n}}, 5\r\n,\r\n"x"]'
    assert [(row.position, row.line) for row in files.rows(text)] == [(1, 2), (2, 4), (3, 6), (4, 8)]


def test_items_of_a_json_array_that_are_no_recipients_are_wrong_one_by_one(files: Files) -> None:
    rows = files.rows(json.dumps([None, [ANNA], {"phone": ANNA}, {NUMBER: OMAR}]))
    assert [row.error for row in rows] == [
        f"each recipient must be a number or a dict with {NUMBER}; got NoneType",
        f"each recipient must be a number or a dict with {NUMBER}; got list",
        f"{NUMBER} is missing",
        None,
    ]


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ('[\n{"a": 1},\n{"a": }]', 3, "Expecting value"),
        ('[\n{"a": 1}', 2, "expected , or ] after an item"),
        ('[\n{"a": 1},\n', 3, "Expecting value"),
        ('[\n{"a": 1},\n]', 3, "Expecting value"),
        ('[\n{"a": "1', 2, "Unterminated string starting at"),
        ("[", 1, "Expecting value"),
        ('[\n{"a": 1}\n{"b": 1}]', 3, "expected , or ] after an item"),
        ("[1,\n2]\n\n[3]", 4, "there is text after the array's closing ]"),
        ("[1, " + "[" * 2_000_000, 1, "maximum recursion depth exceeded"),
    ],
)
def test_a_json_array_that_is_broken_or_cut_off(files: Files, content: str, line: int, reason: str) -> None:
    assert files.refusal(content).startswith(f"recipients: {files.path}, line {line} is not valid JSON: {reason}")


@pytest.mark.parametrize("block", [1, 2, 3, 7])
def test_it_makes_no_difference_where_the_blocks_end(files: Files, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(json_array, "_BLOCK", block)
    monkeypatch.setattr(module, "_BLOCK", block)
    expected = [{NUMBER: 447700900001, "due": -1.5e3, "ok": True, "x": None, "name": 'é"\\\n😀'}, {NUMBER: OMAR}]
    assert files.values(json.dumps(expected)) == files.values(json.dumps(expected, indent=1)) == expected
    numbers = files.rows("[447700900001, 447700900002]")
    assert [row.number for row in numbers] == [447700900001, 447700900002]
    assert files.values(f"\n \n{NUMBER}\n{ANNA}\n") == [{NUMBER: ANNA}]
    assert files.values(f'\n {{"{NUMBER}": "{ANNA}"}}\n') == [{NUMBER: ANNA}]


def test_bad_utf_8_in_the_middle_of_a_long_json_array(files: Files) -> None:
    item = json.dumps({NUMBER: ANNA}).encode()
    assert "is not UTF-8" in files.refusal(b"[" + (item + b",\n") * 20_000 + b'{"\xff": 1},\n' + item + b"]")


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=4), st.none() | st.text(max_size=4) | st.integers()), max_size=4))
def test_what_a_json_writer_writes_is_read_back(rows: list[dict[str, Any]]) -> None:
    rows = [{**row, NUMBER: ANNA} for row in rows]
    store = MemoryFileSystem()
    attach("memory", None, store)
    store.pipe("/round/trip.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    assert [dict(row.values) for row in read("memory://round/trip.jsonl")] == rows


# Lists


def test_a_list_of_mappings() -> None:
    rows = read([{NUMBER: ANNA, "name": "Anna"}, {NUMBER: OMAR}])
    assert [(row.position, row.number, row.error) for row in rows] == [(1, ANNA, None), (2, OMAR, None)]
    assert rows[0].values["name"] == "Anna"
    assert [row.number for row in read(({NUMBER: ANNA}, {NUMBER: OMAR}))] == [ANNA, OMAR]


def test_a_list_of_numbers() -> None:
    rows = read([ANNA, OMAR])
    assert [(row.position, dict(row.values), row.error) for row in rows] == [
        (1, {NUMBER: ANNA}, None),
        (2, {NUMBER: OMAR}, None),
    ]
    assert survey(RecipientList([ANNA, OMAR])) == survey(RecipientList([{NUMBER: ANNA}, {NUMBER: OMAR}]))


class NA:
    """Has the interface of pandas' DataFrame."""

    def __ne__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


NA.__name__ = "NAType"


@pytest.mark.parametrize("value", [float("nan"), Decimal("NaN"), NA(), None])
def test_what_stands_for_no_value_in_a_table_is_none(value: Any) -> None:
    (row,) = read([{NUMBER: ANNA, "name": value, "tags": [1], "due": 1.5, "when": Decimal(2)}])
    assert dict(row.values) == {NUMBER: ANNA, "name": None, "tags": [1], "due": 1.5, "when": Decimal(2)}
    (row,) = read([{NUMBER: value}])
    assert (row.number, row.error) == (None, None)


def test_nan_in_a_json_file_is_no_value(files: Files) -> None:
    for text in (f'{{"{NUMBER}": "{ANNA}", "name": NaN}}', f'[{{"{NUMBER}": "{ANNA}", "name": NaN}}]'):
        assert files.values(text) == [{NUMBER: ANNA, "name": None}]


@pytest.mark.parametrize(
    ("library", "kind", "advice"),
    [
        ("pandas.core.frame", "DataFrame", 'got a pandas DataFrame; pass its rows: df.to_dict("records")'),
        ("polars.dataframe.frame", "DataFrame", "got a polars DataFrame; pass its rows: df.to_dicts()"),
        ("pyarrow.lib", "Table", "got a pyarrow Table; pass its rows: table.to_pylist()"),
    ],
)
def test_a_table_is_refused_once_and_says_how_to_get_its_rows(library: str, kind: str, advice: str) -> None:
    iterated = {"__iter__": lambda self: iter([NUMBER, "name"])} if kind == "DataFrame" else {}
    table = type(kind, (), {"__module__": library, **iterated})
    for made in (table, type("GeoDataFrame", (table,), {"__module__": "geopandas"})):
        assert refusal(made()) == f"recipients: {advice}"


@pytest.mark.parametrize("kind", [set, frozenset])
def test_a_set_is_refused_because_its_order_differs_from_process_to_process(kind: Any) -> None:
    assert refusal(kind([ANNA, OMAR])) == (
        "recipients: got a set, whose order can differ between attempts; pass a list"
    )
    assert [row.number for row in read(dict.fromkeys([ANNA, OMAR]).keys())] == [ANNA, OMAR]


def test_items_that_are_no_recipients_are_wrong_one_by_one() -> None:
    rows = read([True, None, {}, {"phone": ANNA}, [ANNA], {NUMBER: OMAR}, {NUMBER: None}, 5, 2.01e11])
    assert [row.error for row in rows] == [
        f"each recipient must be a number or a dict with {NUMBER}; got bool",
        f"each recipient must be a number or a dict with {NUMBER}; got NoneType",
        f"{NUMBER} is missing",
        f"{NUMBER} is missing",
        f"each recipient must be a number or a dict with {NUMBER}; got list",
        None,
        *[None] * 3,  # the client explains what is wrong with a number
    ]


@pytest.mark.parametrize("source", [None, 5, True, {NUMBER: ANNA}, b"/data/list.csv", jinja2.Undefined(name="people")])
def test_what_is_no_list_and_no_path(source: Any) -> None:
    text = refusal(source)
    assert f"must be a list of dicts or of numbers, or the path of a file; got {type(source).__name__}" in text


def test_what_can_be_read_only_once_is_refused() -> None:
    # The list is read to the end before the first message leaves, and once more while they leave.
    assert "can only be read once; pass a list" in refusal({NUMBER: ANNA} for _ in range(3))
    assert "can only be read once" in refusal(iter([{NUMBER: ANNA}]))


@pytest.mark.parametrize("text", ["[{'contact_mobile_number': '+447700900001'}]", '  {"a": 1}', "[]", "{{ x }}"])
def test_text_that_looks_like_a_list(text: str) -> None:
    assert "got text that looks like a list; pass the list itself" in refusal(text)
    assert ANNA not in refusal(text)


# Where files are


def test_a_local_file_in_every_form(tmp_path: Path) -> None:
    path = tmp_path / "the list.csv"
    path.write_text(f"{NUMBER}\n{ANNA}\n")
    forms = [
        str(path),
        path,
        path.as_uri(),
        f"file://{path}",
        f"FILE://{path}",
        object_storage.object_storage_path(f"file://{tmp_path}", None) / "the list.csv",
    ]
    for form in forms:
        assert [row.number for row in read(form)] == [ANNA]


def test_a_file_in_an_object_storage(storage: Any) -> None:
    storage.pipe("/bucket/the list.csv", f"{NUMBER}\n{ANNA}\n".encode())
    for form in (
        "memory://bucket/the list.csv",
        object_storage.object_storage_path("memory://bucket", None) / "the list.csv",
    ):
        assert [row.number for row in read(form)] == [ANNA]


def test_the_connection_of_the_object_storage_is_used() -> None:
    class Other(MemoryFileSystem):  # type: ignore[misc]
        cachable = False
        store: dict[str, Any] = {}
        pseudo_dirs = [""]

    attach("memory", "lists", Other())
    Other().pipe("/bucket/list.csv", f"{NUMBER}\n{OMAR}\n".encode())
    assert [row.number for row in read("memory://bucket/list.csv", "lists")] == [OMAR]


def test_the_right_to_read_is_enough() -> None:
    attach("memory", "list_only_to_read", Restricted("rb", {"bucket/list.csv": f"{NUMBER}\n{OMAR}\n".encode()}))
    assert [row.number for row in read("memory://bucket/list.csv", "list_only_to_read")] == [OMAR]


def test_files_that_cannot_be_read(tmp_path: Path, storage: Any) -> None:
    assert refusal(tmp_path / "missing.csv") == f"recipients: no such file: {tmp_path}/missing.csv"
    assert refusal("memory://bucket/missing.csv") == "recipients: no such file: memory://bucket/missing.csv"
    assert f"{tmp_path} cannot be read: IsADirectoryError" in refusal(tmp_path)
    assert "nosuch://x/y.csv cannot be read: " in refusal("nosuch://x/y.csv")
    assert refusal("https://example.com/list.csv?token=secret") == (
        "recipients: https://example.com/… is a web address; download the file in an earlier task and give its path"
    )


def test_a_file_is_closed_when_its_reader_stops_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    def open_and_remember(*args: Any, **kwargs: Any) -> Any:
        file = open(*args, **kwargs)  # noqa: SIM115  (whether it is closed is the question)
        opened.append(file)
        return file

    path = tmp_path / "list.csv"
    path.write_text(f"{NUMBER}\n" + f"{ANNA}\n" * 5000)
    monkeypatch.setattr("airflow_provider_wassly.files.locations.open", open_and_remember, raising=False)
    chunks = RecipientList(path).chunks()
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert [file.closed for file in opened] == [True]


# One recipient in a template


class Loud(jinja2.Undefined):
    """A lenient undefined type, as a DAG may have set."""

    def __str__(self) -> str:
        return "lenient"


def render(template: str, values: dict[str, Any]) -> str:
    environment = SandboxedEnvironment(undefined=Loud)
    # As Airflow's: names with one underscore are allowed.
    environment.is_safe_attribute = lambda obj, attr, value: not attr.startswith("__")  # type: ignore[method-assign]
    return environment.from_string(template).render(recipient=Recipient(values))


@pytest.mark.parametrize("name", ["items", "get", "keys", "values", "_values", "name", "copy", "_x"])
def test_every_column_can_be_had(name: str) -> None:
    for template in (f"{{{{ recipient.{name} }}}}", f"{{{{ recipient['{name}'] }}}}"):
        assert render(template, {name: "cell"}) == "cell"


def test_columns_whose_names_are_no_names() -> None:
    values = {"invoice no.": "7", "__class__": "odd", "اسم": "عمر", "a-b": "x"}
    for name, cell in values.items():
        assert render(f"{{{{ recipient['{name}'] }}}}", values) == cell
    assert render("{{ recipient.اسم }}", values) == "عمر"


@pytest.mark.parametrize("name", ["items", "get", "_values", "nmae"])
def test_a_column_that_is_not_there_is_an_error_also_in_a_lenient_dag(name: str) -> None:
    values = {NUMBER: ANNA, "name": "Anna"}
    for template in (
        f"{{{{ recipient.{name} }}}}",
        f"{{{{ recipient['{name}'] }}}}",
        f"{{{{ recipient.{name} + 'x' }}}}",
    ):
        with pytest.raises(jinja2.UndefinedError) as raised:
            render(template, values)
        assert str(raised.value) == f"this row has no value in column {name!r}; its columns: {NUMBER}, name"
    assert render(f"{{{{ recipient.{name} is defined }}}}", values) == "False"
    assert render(f"{{{{ recipient.{name} | default('friend') }}}}", values) == "friend"


def test_a_column_without_a_value_can_be_asked_for_and_never_becomes_the_word_none() -> None:
    values = {NUMBER: ANNA, "name": None}
    for template in ("{{ recipient.name }}", "{{ recipient.name ~ '!' }}", "{{ recipient.name | upper }}"):
        with pytest.raises(jinja2.UndefinedError) as raised:
            render(template, values)
        assert str(raised.value) == f"this row has no value in column 'name'; its columns: {NUMBER}, name"
    assert render("{{ recipient.name | default('friend') }}", values) == "friend"
    assert render("{{ recipient.name or 'friend' }}", values) == "friend"
    assert render("{% if recipient.name %}Dear{% else %}Hello{% endif %}", values) == "Hello"
    assert render("{{ recipient.name == 'Anna' }}", values) == "False"
    assert render("{{ 'name' in recipient }}", values) == "True"


def test_a_row_without_any_column() -> None:
    with pytest.raises(jinja2.UndefinedError, match="its columns: none"):
        render("{{ recipient.name }}", {})


def test_a_row_can_be_gone_through_like_a_mapping() -> None:
    values = {NUMBER: ANNA, "name": "Anna"}
    assert render("{% for name in recipient %}{{ name }}={{ recipient[name] }} {% endfor %}", values) == (
        f"{NUMBER}={ANNA} name=Anna "
    )
    assert render("{{ 'name' in recipient }} {{ 'town' in recipient }}", values) == "True False"


def test_a_whole_row_is_not_printed_into_a_message() -> None:
    with pytest.raises(TypeError, match=r"one of its columns: contact_mobile_number, name"):
        render("Dear {{ recipient }}", {NUMBER: ANNA, "name": "Anna"})


# Facts about the whole list


def test_a_survey_counts_and_is_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 2)
    people = [{NUMBER: f"+4477009000{number:02}", "name": number} for number in range(5)]
    first = survey(RecipientList(people))
    assert first.total == 5
    assert len(first.digests) == 3 * len(digest(()))
    assert survey(RecipientList([{**person, "name": "another"} for person in people])) == first


@pytest.mark.parametrize("changed", range(5))
def test_a_survey_shows_in_which_chunk_a_number_has_changed(monkeypatch: pytest.MonkeyPatch, changed: int) -> None:
    monkeypatch.setattr(module, "CHUNK", 2)
    people = [{NUMBER: f"+4477009000{number:02}"} for number in range(5)]
    before = survey(RecipientList(people)).digests
    people[changed] = {NUMBER: OMAR + "0"}
    after = survey(RecipientList(people)).digests
    size = len(digest(()))
    differing = [place for place in range(3) if before[place * size :][:size] != after[place * size :][:size]]
    assert differing == [changed // 2]


@pytest.mark.parametrize("content", ["", "\n \n", NUMBER, f"{NUMBER},name\n", f"{NUMBER}\n\n\n"])
def test_an_empty_list_is_refused(files: Files, content: str) -> None:
    files.path.write_text(content)
    sources: list[Any] = [files.path, []]
    for source in sources:
        with pytest.raises(WasslyInvalidMessage, match="recipients: empty; there is nobody to send to"):
            survey(RecipientList(source))


def rows_of(numbers: list[Any]) -> list[Row]:
    return [Row(position, {NUMBER: number}) for position, number in enumerate(numbers, start=1)]


SHORTENED = (
    'recipients: the numbers are shortened (+44…0123), as in a report with report_numbers="short"; write that report '
    'with report_numbers="full", or pass its unsent file'
)


@pytest.mark.parametrize("numbers", [["+44…0123"], ["12", "+44…0123", "", "+4…23"], ["nob…ody", "…", "+44… 301"]])
def test_a_list_of_shortened_numbers_is_refused(files: Files, numbers: list[str]) -> None:
    files.path.write_text(f"row,{NUMBER},outcome\n" + "".join(f"1,{number},failed\n" for number in numbers))
    sources: list[Any] = [files.path, numbers, [None, *numbers], [{NUMBER: number} for number in numbers]]
    for source in sources:
        with pytest.raises(WasslyInvalidMessage) as raised:
            survey(RecipientList(source))
        assert str(raised.value) == SHORTENED


@pytest.mark.parametrize("numbers", [[ANNA, "+44…0123"], ["+44…0123", OMAR], ["12"], ["447700900123"]])
def test_a_number_that_is_shortened_stops_no_other(numbers: list[str]) -> None:
    assert survey(RecipientList(numbers)).total == len(numbers)


def test_the_order_and_the_borders_between_numbers_count() -> None:
    several = [[ANNA, OMAR], [OMAR, ANNA], [ANNA + OMAR], [f"{ANNA}\n{OMAR}"], [ANNA], []]
    assert len({digest(rows_of(numbers)) for numbers in several}) == len(several)


def test_a_broadcast_that_is_on_its_way_resumes_with_another_version_of_this_package(files: Files) -> None:
    # Existing records contain these digests.
    for rows in (
        rows_of([ANNA, OMAR]),
        read([{NUMBER: ANNA, "name": None}, {NUMBER: OMAR}]),
        files.rows(f"\n{NUMBER};name\n\n{ANNA};Anna\n{OMAR};\n"),
        files.rows(f'{{"{NUMBER}": "{ANNA}"}}\n{{"{NUMBER}": "{OMAR}"}}'),
    ):
        assert digest(rows) == "2588"
        assert [mark(row) for row in rows] == [38167, 19397]


def test_numbers_that_are_half_a_character_have_a_digest_too() -> None:
    assert digest(rows_of(["\ud800", None, 5, 1.5])) == digest(rows_of(["\ud800", None, 5, 1.5]))


def test_a_digest_is_too_short_for_finding_a_number_by_trying() -> None:
    # Of the 10,000,000 numbers in one British block alone, this many share the digest of a one-number list.
    assert 10_000_000 / 16 ** len(digest(rows_of([ANNA]))) > 100


@pytest.mark.parametrize("total", [0, 1, 3, 4, 5, 8])
def test_chunks_are_full_but_for_the_last(monkeypatch: pytest.MonkeyPatch, total: int) -> None:
    monkeypatch.setattr(module, "CHUNK", 4)
    chunks = list(RecipientList([{NUMBER: ANNA}] * total).chunks())
    assert [row.position for rows in chunks for row in rows] == list(range(1, total + 1))
    assert [len(rows) for rows in chunks[:-1]] == [4] * (len(chunks) - 1)
    assert all(0 < len(rows) <= 4 for rows in chunks)


@pytest.mark.parametrize("form", ["csv", "JSON lines", "JSON array", "JSON array with line breaks"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(module, "CHUNK", 100)
    path = tmp_path / "list"
    people = [
        {NUMBER: f"+4477{number:08}", "contact_name": f"Person {number}", "invoice": f"R-{number}"}
        for number in range(10_000)
    ]
    if form == "csv":
        path.write_text("\n".join([",".join(people[0]), *(",".join(person.values()) for person in people)]))
    elif form == "JSON lines":
        path.write_text("\n".join(map(json.dumps, people)))
    else:
        path.write_text(json.dumps(people, indent=2 if form.endswith("breaks") else None))
    del people

    def peak() -> int:
        with traced():
            assert survey(RecipientList(path)).total == 10_000
            return tracemalloc.get_traced_memory()[1]

    assert in_own_process(peak) < 800_000  # of about 5 MB
