"""The list of recipients, read as a stream."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import IO, Any

from jinja2 import StrictUndefined, Undefined

from airflow_provider_wassly.broadcast.json_array import NotJsonError, items
from airflow_provider_wassly.client import WasslyInvalidMessage
from airflow_provider_wassly.client.attachments import in_full
from airflow_provider_wassly.files.locations import local_path, open_location, reason_of, refuse_web_address

NUMBER = "contact_mobile_number"

#: Rows per chunk: read ahead together, and recorded together in one value of the send record.
CHUNK = 2000

#: Put in front of a cell of ``unsent`` that a spreadsheet would execute, and removed again when the list is read. No
#: list contains it otherwise.
GUARD = "'\u2060"

#: The column of ``unsent`` that holds the full text of a row that could not be read. Until it is emptied, the row is
#: not sent to.
UNREADABLE = "unreadable_row"

_DELIMITERS = (",", ";", "\t", "|")

#: The line that tells Excel the delimiter.
_SEP = re.compile(r'"?sep=([,;\t|])"?\s*', re.IGNORECASE)

#: Characters of the first line to read before its format is known: it may be a whole JSON array.
_BLOCK = 64 * 1024

#: Tables that would be iterated by column, by library and type, and the call that returns their rows.
_TABLES = {
    ("pandas", "DataFrame"): 'df.to_dict("records")',
    ("polars", "DataFrame"): "df.to_dicts()",
    ("pyarrow", "Table"): "table.to_pylist()",
}

_SAVE_AS_CSV = "save the sheet as CSV (UTF-8)"
_UNPACK = "unpack it first"

#: How files that are not text begin, what they are, and what to do about it.
_NO_TEXT = [
    (re.compile(begin, re.DOTALL), kind, advice)
    for begin, kind, advice in (
        (rb"PK\x03\x04.{26}(\[Content_Types\]|_rels/|docProps/|xl/)", "an Excel workbook", _SAVE_AS_CSV),
        (rb"PK\x03\x04.{26}mimetypeapplication/vnd\.oasis", "an OpenDocument spreadsheet", _SAVE_AS_CSV),
        (rb"PK\x03\x04", "a ZIP archive", _UNPACK),
        (rb"\xd0\xcf\x11\xe0", "an old Excel workbook", _SAVE_AS_CSV),
        (rb"\x1f\x8b", "compressed with gzip", _UNPACK),
        (rb"BZh[1-9]1AY&SY", "compressed with bzip2", _UNPACK),
        (rb"\xfd7zXZ\0", "compressed with xz", _UNPACK),
        (rb"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK),
        (rb"PAR1\x15", "a Parquet file", 'read it in an upstream task that returns df.to_dict("records")'),
        # The first characters of a list are ASCII.
        (rb"\0|.\0", "not text, or UTF-16 without a byte order mark", "save it as UTF-8"),
    )
]
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Row:
    """
    One recipient.

    :param position: its place in the list, counted from 1 without blank lines.
    :param values: its columns.
    :param error: what is wrong with the row itself, ``None`` if nothing is.
    :param line: the line of the file that it begins on, counted from 1; ``None`` if the list is not a file.
    :param unreadable: the full text of the row, if its columns do not hold all of it.
    """

    position: int
    values: Mapping[str, Any]
    error: str | None = None
    line: int | None = None
    unreadable: str = ""

    @property
    def number(self) -> Any:
        """The number as written in the list."""
        return self.values.get(NUMBER)

    @property
    def where(self) -> str:
        """Its place, for logs and errors."""
        return where(self.position, self.line)

    def check(self) -> None:
        """
        Refuse a row that cannot be sent to, whatever the message.

        :raises WasslyInvalidMessage: says why.
        """
        if self.error:
            raise WasslyInvalidMessage(self.error, field="the row")


def where(position: int, line: int | None) -> str:
    """Return the place of a row in the list and in its file."""
    return f"row {position}" if line is None else f"row {position}, line {line}"


class Recipient:
    """
    A row as templates see it.

    Every column is an attribute, even one named ``items`` or ``get``. A column that is missing is undefined, however
    the DAG treats undefined names: printing it is an error, ``is defined`` and ``default`` work. A column without a
    value is undefined too, so that no recipient is called None; ``if`` and ``or`` work with it.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getattribute__(self, name: str) -> Any:
        # Python and Jinja look up such names to find out what an object can do.
        return object.__getattribute__(self, name) if name.startswith("__") else self[name]

    def __getitem__(self, name: str) -> Any:
        values = _values_of(self)
        if (value := values.get(name)) is not None:
            return value
        kind = _NoValue if name in values else StrictUndefined
        return kind(f"this row has no value in column {name!r}; its columns: {_names(values)}")

    # Without these two, Python would ask for columns 0, 1, 2 and so on, forever.
    def __iter__(self) -> Iterator[str]:
        return iter(_values_of(self))

    def __contains__(self, name: object) -> bool:
        return name in _values_of(self)

    def __str__(self) -> str:
        raise TypeError(f"recipient is a whole row; use one of its columns: {_names(_values_of(self))}")


class _NoValue(Undefined):
    """The value of an empty column: it can be tested, but not printed."""

    __slots__ = ()

    def __str__(self) -> str:
        return self._fail_with_undefined_error()


def _values_of(recipient: Recipient) -> Mapping[str, Any]:
    values: Mapping[str, Any] = object.__getattribute__(recipient, "_values")
    return values


def _names(values: Mapping[str, Any]) -> str:
    return ", ".join(map(str, values)) or "none"


class _Refused(Exception):
    """Raised when something is not a list, by those who do not know the parameter that it is the value of."""


class RecipientList:
    """
    A list of recipients that can be read several times.

    :param source: a list of dicts or of numbers; or the path or URI of a CSV file with a header line, of a file with a
        JSON array, or of a file with one JSON object per line.
    :param conn_id: the Airflow connection for the object storage.
    :raises WasslyInvalidMessage: when it is none of these.
    """

    #: The operator's parameter, for errors.
    parameter = "recipients"
    #: Whether only the numbers matter: they may be a set, or the lines of a text file.
    is_numbers_only = False

    def __init__(self, source: Any, conn_id: str | None = None) -> None:
        self._source = source
        # An undefined name has no attributes to ask for.
        is_undefined = isinstance(source, Undefined)
        self._is_file = not is_undefined and (isinstance(source, (str, PurePath)) or hasattr(source, "protocol"))
        self._conn_id = conn_id
        with self._named():
            self._check()
        if self._is_file:
            refuse_web_address(source, self.parameter)

    @property
    def file(self) -> Any:
        """The path or URI of the file, ``None`` if the list is not a file."""
        return self._source if self._is_file else None

    def chunks(self) -> Iterator[list[Row]]:
        """
        Read the list from the beginning.

        :raises WasslyInvalidMessage: when it cannot be read.
        """
        rows: list[Row] = []
        with self._named():
            for row in self._rows():
                rows.append(row)
                if len(rows) == CHUNK:
                    yield rows
                    rows = []
        if rows:
            yield rows

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Name the parameter in errors."""
        try:
            yield
        except _Refused as error:
            raise WasslyInvalidMessage(str(error), field=self.parameter) from error.__cause__

    def _check(self) -> None:
        source, kind = self._source, type(self._source).__name__
        if isinstance(source, str) and source.lstrip().startswith(("[", "{")):
            raise _Refused(
                "got text that looks like a list; pass the list itself, for instance the output of a task, "
                "not a template that prints it"
            )
        _refuse_table(source)
        if self._is_file:
            return
        # An undefined name can be iterated, as if it were an empty list.
        if isinstance(source, (Mapping, bytes, Undefined)) or not hasattr(source, "__iter__"):
            raise _Refused(f"must be a list of dicts or of numbers, or the path of a file; got {kind}")
        if isinstance(source, (set, frozenset)) and not self.is_numbers_only:
            raise _Refused("got a set, whose order can differ between attempts; pass a list")
        if hasattr(source, "__next__"):
            raise _Refused(f"got an object of type {kind}, which can only be read once; pass a list")

    def _rows(self) -> Iterator[Row]:
        if not self._is_file:
            for position, item in enumerate(self._source, start=1):
                yield _row(position, item)
            return
        with _opened(self._source, self._conn_id) as file:
            encoding = _encoding(file, str(self._source))
            text = io.TextIOWrapper(file, encoding=encoding, newline="")
            try:
                yield from _from_file(text, str(self._source), self.is_numbers_only)
            except UnicodeDecodeError:
                damage = "is not UTF-8" if encoding == "utf-8-sig" else "is damaged UTF-16"
                raise _Refused(f"{self._source} {damage}; save it as UTF-8") from None


def digest(rows: Iterable[Row]) -> str:
    """
    Return a checksum that shows whether rows are the same recipients in the same order.

    It has four hexadecimal digits: another list has the same ones by chance once in 65,536 times. With more digits,
    whoever reads the record of a short list could recover its numbers by trying them all.
    """
    hashed = hashlib.sha256()
    for row in rows:
        hashed.update(f"{row.number!r}\n".encode(errors="surrogatepass"))
    return hashed.hexdigest()[:4]


def mark(row: Row) -> int:
    """
    Return a checksum that shows whether a row is the same recipient at the same place.

    It has 16 bits: another row has the same ones by chance once in 65,536 times. With more bits, whoever reads the
    record of a short list could recover its numbers by trying them all.
    """
    hashed = hashlib.sha256(f"{row.position}\n{row.number!r}".encode(errors="surrogatepass"))
    return int.from_bytes(hashed.digest()[:2], "big")


def content_of(row: Row) -> int:
    """Return a 32-bit checksum of everything in a row except its number."""
    values = sorted((str(name), repr(value)) for name, value in row.values.items() if name != NUMBER)
    return zlib.crc32(repr(values).encode(errors="surrogatepass"))


#: A number has at least as many.
_LEAST_DIGITS = 8

#: How many column names to remember; a list with more of them generates them.
_MAX_COLUMNS = 10_000


@dataclass(frozen=True)
class Survey:
    """
    What one pass over the whole list has found.

    :param total: the number of rows.
    :param digests: the checksums of all chunks, one after the other.
    :param columns: the names of all columns, ``None`` if there are too many.
    """

    total: int
    digests: str
    columns: frozenset[str] | None


def survey(recipients: RecipientList) -> Survey:
    """
    Read the whole list once.

    :raises WasslyInvalidMessage: when it cannot be read, is empty, or has shortened numbers only.
    """
    total, digests = 0, []
    columns: set[str] = set()
    has_shortened = has_full = False
    for rows in recipients.chunks():
        total += len(rows)
        digests.append(digest(rows))
        for row in rows:
            number = str(row.number)
            has_shortened |= "…" in number
            has_full |= "…" not in number and len(number) >= _LEAST_DIGITS
        if len(columns) <= _MAX_COLUMNS:
            columns.update(*(map(str, row.values) for row in rows))
    if not total:
        raise WasslyInvalidMessage("empty; there is nobody to send to", field=recipients.parameter)
    if has_shortened and not has_full:
        raise WasslyInvalidMessage(
            'the numbers are shortened (+44…0123), as in a report with report_numbers="short"; '
            'write that report with report_numbers="full", or pass its unsent file',
            field=recipients.parameter,
        )
    return Survey(total, "".join(digests), frozenset(columns) if len(columns) <= _MAX_COLUMNS else None)


def _refuse_table(source: Any) -> None:
    # By name, because the library is not a dependency of this package.
    for kind in type(source).__mro__:
        library = kind.__module__.partition(".")[0]
        if (advice := _TABLES.get((library, kind.__name__))) is not None:
            raise _Refused(f"got a {library} {kind.__name__}; pass its rows: {advice}")


def _row(position: int, item: Any, line: int | None = None) -> Row:
    if isinstance(item, (str, int, float)) and not isinstance(item, bool):
        item = {NUMBER: item}  # the client reports what is wrong with the number
    if not isinstance(item, Mapping):
        wrong = f"each recipient must be a number or a dict with {NUMBER}; got {type(item).__name__}"
        return Row(position, {}, wrong, line, repr(item))
    if any(map(_is_nan, item.values())):
        item = {name: None if _is_nan(value) else value for name, value in item.items()}
    error = _not_corrected(item) if NUMBER in item else f"{NUMBER} is missing"
    return Row(position, item, error, line, str(item.get(UNREADABLE) or ""))


def _not_corrected(values: Mapping[str, Any]) -> str | None:
    if values.get(UNREADABLE):
        return f"could not be read in an earlier list; correct it, then empty its column {UNREADABLE}"
    return None


def _is_nan(value: Any) -> bool:
    """Tell whether a value is NaN, or another one that means "no value" in a table."""
    if isinstance(value, (str, int, list, dict)):
        return False
    try:
        return bool(value != value)
    except Exception:  # NA of pandas refuses to be compared
        return type(value).__name__ == "NAType"


@contextmanager
def _opened(source: Any, conn_id: str | None) -> Iterator[IO[bytes]]:
    try:
        file = open_location(source, conn_id, "rb")
    except FileNotFoundError:
        path = local_path(source)
        raise _Refused(f"no such file: {source if path is None else in_full(path)}") from None
    except Exception as error:
        raise _Refused(f"{source} cannot be read: {reason_of(error)}") from error
    with file:
        yield file


def _encoding(file: IO[bytes], name: str) -> str:
    start = file.read(200)
    file.seek(0)
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise _Refused(f"{name} is UTF-32; save it as UTF-8")
    if start.startswith(_UTF_16):
        return "utf-16"
    for begin, kind, advice in _NO_TEXT:
        if begin.match(start):
            raise _Refused(f"{name} is {kind}; {advice}")
    return "utf-8-sig"


def _from_file(text: io.TextIOWrapper, name: str, is_numbers_only: bool) -> Iterator[Row]:
    number = 1
    while (first := text.readline(_BLOCK)) and not first.strip():
        number += 1
    if first.lstrip().startswith("["):
        yield from _from_json_array(first, text, name, number)
        return
    if not first.endswith(("\n", "\r")):
        first += text.readline()
    if first.strip() == "{":
        raise _Refused(f"{name} holds a JSON object on several lines; write one object per line, or a JSON array")
    if first.lstrip().startswith("{"):
        yield from _from_json_lines(first, text, number)
    elif found := _SEP.fullmatch(first):
        yield from _from_csv(text.readline(), text, name, number + 1, found[1])
    elif is_numbers_only and not any(part in first.strip() for part in (NUMBER, *_DELIMITERS)):
        yield from _from_lines(first, text, number)
    else:
        yield from _from_csv(first, text, name, number, _delimiter(first))


def _from_lines(first: str, text: Iterable[str], number: int) -> Iterator[Row]:
    """Read a text file with one number per line."""
    lines = enumerate(map(str.strip, _with_first(first, text)), start=number)
    for position, (line, content) in enumerate(((line, content) for line, content in lines if content), start=1):
        yield _row(position, content, line)


def _from_json_array(first: str, text: IO[str], name: str, number: int) -> Iterator[Row]:
    try:
        for position, (line, item) in enumerate(items(text, first, number), start=1):
            yield _row(position, item, line)
    except NotJsonError as error:
        raise _Refused(f"{name}, {error}") from None


def _from_json_lines(first: str, text: Iterable[str], number: int) -> Iterator[Row]:
    position = 0
    for line, content in enumerate(_with_first(first, text), start=number):
        if not content.strip():
            continue
        position += 1
        try:
            item = json.loads(content)
        except json.JSONDecodeError as error:
            # The text of the error would call every line the first.
            yield Row(position, {}, f"not valid JSON: {error.msg}, column {error.colno}", line, content.strip())
        except (RecursionError, ValueError) as error:
            yield Row(position, {}, f"not valid JSON: {error}", line, content.strip())
        else:
            yield _row(position, item, line)


def _delimiter(header: str) -> str:
    return max(_DELIMITERS, key=lambda char: (NUMBER in _cells(header, char), header.count(char)))


def _from_csv(first: str, text: Iterable[str], name: str, number: int, delimiter: str) -> Iterator[Row]:
    reader = csv.reader(_with_first(first, text), delimiter=delimiter, strict=True)
    columns: list[str] = []
    position = 0
    while True:
        line = number + reader.line_num
        try:
            cells = [cell.removeprefix(GUARD) for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise _Refused(f"{name}, line {number - 1 + reader.line_num} is not CSV: {error}") from None
        if not any(cell.strip() for cell in cells):
            continue
        if not columns:
            columns = _header(cells, name)
            continue
        position += 1
        values = {column: cell for column, cell in zip(columns, cells, strict=False) if column}
        wrong, whole = _not_corrected(values), values.get(UNREADABLE, "")
        if any(cell.strip() for cell in cells[len(columns) :]):
            wrong, whole = f"has {len(cells)} fields, but the header has {len(columns)}", _as_csv(cells)
        elif NUMBER not in values:
            wrong = f"ends before the column {NUMBER}"
        yield Row(position, values, wrong, line, whole)


def _as_csv(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
    except csv.Error:
        return []


def _header(cells: list[str], name: str) -> list[str]:
    columns = [cell.strip() for cell in cells]
    while columns and not columns[-1]:
        del columns[-1]  # cells below it belong to no column
    if NUMBER not in columns:
        # If the header is missing, this is the first recipient: show no number.
        shown = ", ".join("…" if sum(map(str.isdigit, column)) > 4 else column for column in columns)
        raise _Refused(
            f"{name} has no column {NUMBER}; its first line must name the columns, but holds: {shown}"
            if len(columns) > 1
            else f"{name} has no header line with a column {NUMBER}"
        )
    twice = next((column for column in columns if column and columns.count(column) > 1), None)
    if twice:
        raise _Refused(f"{name} has the column {twice} twice")
    return columns


def _with_first(first: str, text: Iterable[str]) -> Iterator[str]:
    yield first
    yield from text
