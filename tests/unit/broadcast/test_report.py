"""The report of a broadcast."""

from __future__ import annotations

import codecs
import csv
import gc
import io
import os
import stat
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly.airflow_compat import object_storage
from airflow_provider_wassly.broadcast.recipients import NUMBER, RecipientList, Row
from airflow_provider_wassly.broadcast.report import COLUMNS, Line, Report, Unsent, _is_run, indexed
from airflow_provider_wassly.client import WasslyInvalidMessage, normalize
from tests.support.memory import in_own_process, traced
from tests.support.storages import Restricted, attach


@pytest.fixture
def storage() -> Iterator[Any]:
    found = MemoryFileSystem()
    attach("memory", None, found)
    found.store.clear()
    yield found
    found.store.clear()


def row(position: int, **columns: Any) -> Row:
    return Row(position, {NUMBER: f"+4477009{position:05}", **columns})


def line(position: int) -> Line:
    return Line(row(position), "accepted", position + 1000)


def written(text: str) -> list[list[str]]:
    # Tells Excel the encoding.
    header, *rows = csv.reader(text.removeprefix("\ufeff").splitlines(keepends=True))
    assert text.startswith("\ufeff")
    assert header == list(COLUMNS)
    return rows


def save(location: Any, *lines: Line) -> None:
    report = Report(location)
    for each in lines:
        report.add(each)
    report.save()
    report.close()


def refusal(location: Any) -> str:
    with pytest.raises(WasslyInvalidMessage) as raised:
        Report(location)
    assert raised.value.field == "report"
    return str(raised.value)


def test_one_line_for_each_recipient(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    reason = 'Wassly said "no", twice;\nand عمر'
    save(path, Line(row(1), "accepted", 77), Line(row(2), "failed", reason=reason))
    assert path.read_bytes().startswith(codecs.BOM_UTF8)
    with path.open(newline="", encoding="utf-8-sig") as file:
        assert list(csv.reader(file)) == [
            ["row", "contact_mobile_number", "outcome", "conversation_id", "reason", "line"],
            ["1", "+44…0001", "accepted", "77", "", ""],
            ["2", "+44…0002", "failed", "", reason, ""],
        ]


def test_a_recipient_of_a_file_is_reported_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"{NUMBER}\n\n+447700900001\n")
    (rows,) = RecipientList(tmp_path / "list.csv").chunks()
    save(tmp_path / "report.csv", Line(rows[0], "accepted", 77))
    assert written((tmp_path / "report.csv").read_text())[0][-1] == "3"


@settings(deadline=None)
@given(st.permutations(range(1, 12)))
def test_lines_come_in_the_order_of_the_list_whatever_order_they_are_added_in(order: list[int]) -> None:
    store = MemoryFileSystem()
    attach("memory", None, store)
    save("memory://reports/order.csv", *map(line, order))
    rows = written(store.cat("/reports/order.csv").decode())
    assert [row[0] for row in rows] == [str(number) for number in range(1, 12)]


def test_what_is_missing_hides_nothing_of_the_rest(tmp_path: Path) -> None:
    save(tmp_path / "report.csv", line(4), line(2), line(1))
    assert [row[0] for row in written((tmp_path / "report.csv").read_text())] == ["1", "2", "4"]


def test_nobody(tmp_path: Path) -> None:
    save(tmp_path / "report.csv")
    assert written((tmp_path / "report.csv").read_text()) == []


def test_every_form_of_a_local_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a report.csv"
    forms = [
        str(path),
        path,
        f"file://{path}",
        path.as_uri(),
        "a report.csv",
        object_storage.object_storage_path(f"file://{tmp_path}", None) / "a report.csv",
    ]
    for number, form in enumerate(forms, start=1):
        save(form, *map(line, range(1, number + 1)))
        assert len(written(path.read_text())) == number
        assert os.listdir(tmp_path) == ["a report.csv"]


def test_an_object_storage(storage: Any) -> None:
    storage.mkdirs("/bucket")
    for number, form in enumerate(
        ("memory://bucket/report.csv", object_storage.object_storage_path("memory://bucket", None) / "report.csv"),
        start=1,
    ):
        save(form, *map(line, range(1, number + 1)))
        assert len(written(storage.cat("/bucket/report.csv").decode())) == number


def test_the_connection_of_the_object_storage_is_used(storage: Any) -> None:
    class Other(MemoryFileSystem):  # type: ignore[misc]
        cachable = False
        store: dict[str, Any] = {}
        pseudo_dirs = [""]

    attach("memory", "reports", Other())
    report = Report("memory://bucket/report.csv", "reports")
    report.add(line(1))
    report.save()
    report.close()
    assert len(written(Other().cat("/bucket/report.csv").decode())) == 1
    assert storage.store == {}


def test_a_report_that_is_there_stays_until_the_new_one_is_whole(tmp_path: Path, storage: Any) -> None:
    path = tmp_path / "report.csv"
    for location in (str(path), "memory://bucket/report.csv"):
        save(location, line(1), line(2))
        report = Report(location)
        report.add(line(1))
        report.close()
    assert len(written(path.read_text())) == 2
    assert len(written(storage.cat("/bucket/report.csv").decode())) == 2


def test_a_report_that_cannot_be_saved_leaves_the_old_one_and_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.csv"
    save(path, line(1))
    report = Report(path)
    report.add(line(1))
    report.add(line(2))

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        report.save()
    assert len(written(path.read_text())) == 1
    assert os.listdir(tmp_path) == ["report.csv"]
    monkeypatch.undo()
    report.save()
    assert len(written(path.read_text())) == 2
    report.close()


def test_halves_of_characters_are_written_as_what_they_are(tmp_path: Path) -> None:
    report = Report(tmp_path / "report.csv", shows_numbers=True)
    report.add(Line(Row(1, {NUMBER: "\ud800"}), "invalid", reason="عمر \udfff"))
    report.save()
    report.close()
    assert written((tmp_path / "report.csv").read_text(encoding="utf-8")) == [
        ["1", "\\ud800", "invalid", "", "عمر \\udfff", ""]
    ]


def test_a_disk_that_is_full_is_found_out_when_the_report_is_saved_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    temporary = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: temporary() if "dir" in options else Full())
    report = Report(tmp_path / "report.csv")
    for row in range(1, 1000):
        report.add(line(row))
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            report.save()
    report.close()
    assert os.listdir(tmp_path) == []


def test_a_new_report_may_be_read_by_whom_other_new_files_may(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save(tmp_path / "report.csv", line(1))
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("other", "report.csv")]
    assert modes[0] == modes[1]


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"report: {tmp_path} cannot be written: it is a folder"
    missing = tmp_path / "missing" / "report.csv"
    assert refusal(missing) == f"report: {missing} cannot be written: no such folder: {tmp_path}/missing"
    assert "nosuch://bucket/report.csv cannot be written: " in refusal("nosuch://bucket/report.csv")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not through file permissions, because root, who may run the tests, ignores them.
    def denied(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied", kwargs.get("dir"))

    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    assert "report.csv cannot be written: [Errno 13] Permission denied" in refusal(tmp_path / "report.csv")


def test_an_object_storage_that_cannot_be_written_to_is_found_out_before(storage: Any) -> None:
    def denied(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError("AccessDenied")

    storage.open = denied
    try:
        assert refusal("memory://bucket/report.csv") == (
            "report: memory://bucket/report.csv cannot be written: AccessDenied"
        )
    finally:
        del storage.open


def test_the_right_to_write_is_enough() -> None:
    storage = Restricted("wb")
    attach("memory", "only_to_write", storage)
    for lines in (1, 2):
        report = Report("memory://bucket/report.csv", "only_to_write")
        for number in range(lines):
            report.add(line(number + 1))
        report.save()
        report.close()
        assert len(written(storage.files["bucket/report.csv"].decode())) == lines


def test_a_folder_in_an_object_storage_is_no_place_for_a_report(storage: Any) -> None:
    storage.pipe("/bucket/reports/1.csv", b"")
    assert refusal("memory://bucket/reports") == "report: memory://bucket/reports cannot be written: it is a folder"


@pytest.mark.parametrize("output", [Report, Unsent])
def test_a_web_address_is_no_place_for_a_report(output: Any) -> None:
    with pytest.raises(WasslyInvalidMessage) as raised:
        output("https://example.com/report.csv?token=secret")
    assert str(raised.value) == (
        f"{output.parameter}: https://example.com/… is a web address; give a path or a URI such as "
        "s3://bucket/report.csv"
    )


def test_lines_that_can_be_written_are_not_kept_in_memory(tmp_path: Path) -> None:
    def kept() -> int:
        report = Report(tmp_path / "report.csv")
        report.add(line(1))
        with traced():
            for row in range(2, 4_000, 2):
                report.add(line(row + 1))
                report.add(line(row))
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        report.save()
        report.close()
        return held

    assert in_own_process(kept) < 400_000  # of about 800 kB
    assert len(written((tmp_path / "report.csv").read_text())) == 3_999


def test_numbers_are_short_unless_they_are_wanted_in_full(tmp_path: Path) -> None:
    for full, shown in ((False, "+44…0001"), (True, "+447700900001")):
        report = Report(tmp_path / "report.csv", shows_numbers=full)
        report.add(line(1))
        report.save()
        report.close()
        assert written((tmp_path / "report.csv").read_text())[0][1] == shown


def test_what_is_there_until_a_report_is_saved_has_a_header_too(storage: Any) -> None:
    Report("memory://bucket/report.csv").close()
    assert written(storage.cat("/bucket/report.csv").decode()) == []


RUN = [
    "=1+1",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "+44-7700-900301",
    "+cmd|' /C calc'!A0",
    "－1＋1",
    "-",
]
NOT_RUN = ["+447700900301", "+44 7700 900301", "+44.7700.900301", "-5", "-5,30", "a=1", "(=1)", "", "'=1", "44-7700"]


@pytest.mark.parametrize(("cells", "mark"), [(RUN, "'"), (NOT_RUN, "")])
def test_no_spreadsheet_runs_a_cell_of_a_report(tmp_path: Path, cells: list[str], mark: str) -> None:
    report = Report(tmp_path / "report.csv", shows_numbers=True)
    for position, cell in enumerate(cells, start=1):
        report.add(Line(Row(position, {NUMBER: cell}), "invalid", cell, cell))
    report.save()
    report.close()
    with (tmp_path / "report.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for column in (NUMBER, "conversation_id", "reason"):
        assert [row[column] for row in rows] == [mark + cell for cell in cells]


def test_no_spreadsheet_runs_a_short_number(tmp_path: Path) -> None:
    save(
        tmp_path / "report.csv",
        *(
            Line(Row(position, {NUMBER: cell}), "invalid")
            for position, cell in enumerate(["=cmd|' /C calc'!A0", "+447700900301", "+44 7700 900 301"], start=1)
        ),
    )
    assert [row[1] for row in written((tmp_path / "report.csv").read_text())] == ["'=cm…'!A0", "+44…0301", "+44… 301"]


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("report.csv", "report-3.csv"),
        ("/data.d/report", "/data.d/report-3"),
        ("/data/a.b.csv", "/data/a.b-3.csv"),
        ("s3://conn@bucket.name/of/report.csv", "s3://conn@bucket.name/of/report-3.csv"),
        ("file:///tmp/a report.jsonl", "file:///tmp/a report-3.jsonl"),
    ],
)
def test_a_mapped_task_has_a_place_of_its_own(location: str, expected: str) -> None:
    assert indexed(location, 3) == expected


def test_a_mapped_task_has_a_place_of_its_own_in_an_object_storage(storage: Any) -> None:
    location = indexed(object_storage.object_storage_path("memory://bucket/of", "reports") / "report.csv", 3)
    plain = object_storage.object_storage_path("memory://bucket/of", "reports") / "report-3.csv"
    assert (str(location), location.storage_options) == (str(plain), plain.storage_options)


SPELLINGS = st.builds(
    lambda before, prefix, parts, separator: before + prefix + separator + separator.join(parts),
    st.sampled_from(["", "", " ", "\t", "'", "\u200e"]),
    st.sampled_from(["+44", "0044", "＋44", "+44 (0)", "tel:+44"]),
    st.sampled_from([["7700900301"], ["7700", "900301"], ["77", "00", "900", "301"]]),
    st.sampled_from(["", " ", "-", ".", "/", "\u00a0"]),
)


@settings(deadline=None)
@given(st.lists(SPELLINGS, min_size=1))
def test_a_report_with_whole_numbers_is_a_list_of_recipients_again(spellings: list[str]) -> None:
    store = MemoryFileSystem()
    attach("memory", None, store)
    source: Any = spellings
    for _ in range(2):  # and once more, with the report as the list
        report = Report("memory://bucket/report.csv", shows_numbers=True)
        for row in (row for rows in RecipientList(source).chunks() for row in rows):
            report.add(Line(row, "failed", reason="=because, of\nthat"))
        report.save()
        report.close()
        source = "memory://bucket/report.csv"
        found = [row for rows in RecipientList(source).chunks() for row in rows]
        assert [row.error for row in found] == [None] * len(spellings)
        assert {normalize(row.number) for row in found} == {"+447700900301"}
        assert {row.values["outcome"] for row in found} == {"failed"}
        # For those who read it without this package.
        assert not [row for row in written(store.cat("/bucket/report.csv").decode()) if _is_run(row[1])]


# Unsent recipients

OUTCOMES: list[Any] = ["accepted", "failed", "invalid", "unknown", "duplicate", "excluded", "not_sent"]


@pytest.mark.parametrize("name", ["unsent.csv", "unsent.jsonl", "UNSENT.CSV"])
def test_who_was_certainly_not_sent_to_is_a_list_of_recipients_again(tmp_path: Path, name: str) -> None:
    unsent = Unsent(tmp_path / name)
    for position, outcome in reversed(list(enumerate(OUTCOMES, start=1))):
        columns = {"name": f"عمر, {position}", "reason": "that of the file before"}
        unsent.add(Line(row(position, **columns), outcome, reason="because" if outcome == "failed" else ""))
    unsent.save()
    unsent.close()
    (rows,) = RecipientList(tmp_path / name).chunks()
    assert [dict(each.values) for each in rows] == [
        {NUMBER: "+447700900002", "name": "عمر, 2", "reason": "because"},
        {NUMBER: "+447700900003", "name": "عمر, 3", "reason": "invalid"},
        {NUMBER: "+447700900007", "name": "عمر, 7", "reason": "not_sent"},
    ]
    assert [each.error for each in rows] == [None] * 3


def test_columns_that_only_some_rows_have_are_kept(tmp_path: Path) -> None:
    unsent = Unsent(tmp_path / "unsent.csv")
    unsent.add(Line(row(1, a=1), "failed"))
    unsent.add(Line(row(2, b=None), "failed"))
    unsent.add(Line(Row(3, {}, "is not valid JSON"), "invalid", reason="is not valid JSON"))
    unsent.save()
    unsent.close()
    with (tmp_path / "unsent.csv").open(newline="", encoding="utf-8-sig") as file:
        assert list(csv.DictReader(file)) == [
            {NUMBER: "+447700900001", "a": "1", "reason": "failed", "b": ""},
            {NUMBER: "+447700900002", "a": "", "reason": "failed", "b": ""},
            {NUMBER: "", "a": "", "reason": "is not valid JSON", "b": ""},
        ]


def test_when_everybody_was_sent_to_the_list_is_there_and_empty(storage: Any) -> None:
    unsent = Unsent("memory://bucket/unsent.csv")
    unsent.add(line(1))
    unsent.save()
    unsent.close()
    with storage.open("/bucket/unsent.csv") as file:
        assert file.read() == f"\ufeff{NUMBER}\r\n".encode()


def test_a_list_that_was_not_saved_yet_is_empty(storage: Any) -> None:
    unsent = Unsent("memory://bucket/unsent.jsonl")
    unsent.close()
    assert storage.cat("/bucket/unsent.jsonl") == b""


def test_a_place_where_nothing_can_be_written_is_named_with_its_parameter(tmp_path: Path) -> None:
    with pytest.raises(WasslyInvalidMessage, match=r"^unsent: .* cannot be written: no such folder:") as raised:
        Unsent(tmp_path / "missing" / "unsent.csv")
    assert raised.value.field == "unsent"


def unsent_of(location: Any, *rows: dict[str, Any]) -> None:
    unsent = Unsent(location)
    for position, values in enumerate(rows, start=1):
        unsent.add(Line(Row(position, values), "failed", reason="=because"))
    unsent.save()
    unsent.close()


def test_no_spreadsheet_runs_what_is_in_the_list_of_the_unsent(tmp_path: Path) -> None:
    values = {NUMBER: "+447700900301", "=name": "x", **{f"c{place}": cell for place, cell in enumerate(RUN)}}
    unsent_of(tmp_path / "unsent.csv", values)
    content = (tmp_path / "unsent.csv").read_bytes()
    assert content.startswith(codecs.BOM_UTF8)
    for cells in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")):
        assert not [cell for cell in cells if cell.strip()[:1] in set("=+-@－") and cell != "+447700900301"]
        assert "+447700900301" in cells or NUMBER in cells
    ((row,),) = RecipientList(tmp_path / "unsent.csv").chunks()
    assert row.values == {**values, "reason": "=because"}


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@settings(deadline=None)
@given(st.lists(st.tuples(cells | st.sampled_from(["'\u2060=1", "'\u2060", "'=1", *RUN, *NOT_RUN]), cells), min_size=1))
def test_the_list_of_the_unsent_is_read_back_as_it_was(rows: list[tuple[str, str]]) -> None:
    store = MemoryFileSystem()
    attach("memory", None, store)
    for name in ("unsent.csv", "unsent.jsonl"):
        values = [{NUMBER: number, "@text": text} for number, text in rows]
        unsent_of(f"memory://lists/{name}", *values)
        found = [row for chunk in RecipientList(f"memory://lists/{name}").chunks() for row in chunk]
        assert [row.values for row in found] == [{**row, "reason": "=because"} for row in values]
        # And once more, as after a second attempt.
        unsent_of(f"memory://lists/{name}", *(dict(row.values) for row in found))
        again = [row for chunk in RecipientList(f"memory://lists/{name}").chunks() for row in chunk]
        assert [row.values for row in again] == [row.values for row in found]
