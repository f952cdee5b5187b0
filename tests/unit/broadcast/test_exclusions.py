"""Opt-outs in every form that users have."""

from __future__ import annotations

import json
import logging
import tracemalloc
from pathlib import Path
from typing import Any

import jinja2
import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly.airflow_compat import object_storage
from airflow_provider_wassly.broadcast.exclusions import Exclusions
from airflow_provider_wassly.broadcast.recipients import NUMBER, Row
from airflow_provider_wassly.client import WasslyInvalidMessage
from tests.support.memory import in_own_process, traced
from tests.support.storages import attach

ANNA = "+447700900001"
OMAR = "+447700900002"
BOTH = [ANNA, OMAR]


def read(source: Any, region: str | None = None) -> Exclusions:
    exclusions = Exclusions(source, region)
    exclusions.refresh()
    return exclusions


def refusal(source: Any, region: str | None = None) -> str:
    with pytest.raises(WasslyInvalidMessage) as raised:
        read(source, region)
    assert raised.value.field == "exclude"
    assert not raised.value.may_pass
    return str(raised.value)


def excluded(exclusions: Exclusions, *numbers: str) -> list[bool]:
    return [exclusions.excludes(Row(1, {NUMBER: number})) for number in numbers]


FILES = {
    "text": f"{ANNA}\n{OMAR}\n",
    "text of Windows": f"\ufeff{ANNA}\r\n{OMAR}\r\n",
    "text with gaps": f"\n  \n  {ANNA}  \n\n\t{OMAR}\n \n",
    "text without an end": f"{ANNA}\r{OMAR}",
    "csv": f"{NUMBER}\n{ANNA}\n{OMAR}\n",
    "csv with columns": f"date;{NUMBER};note\n2026-11-02;{ANNA};\n2026-11-03;{OMAR};on the phone\n",
    "csv with sep": f"sep=|\n{NUMBER}|date\n{ANNA}|\n{OMAR}|\n",
    "json lines": f'{{"{NUMBER}": "{ANNA}"}}\n"{OMAR}"\n',
    "json array": json.dumps([{NUMBER: ANNA}, OMAR]),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_file_in_every_form(tmp_path: Path, content: str, encoding: str) -> None:
    path = tmp_path / "opt outs.txt"
    path.write_text(content.removeprefix("\ufeff") if encoding == "utf-16" else content, encoding=encoding, newline="")
    storage = object_storage.object_storage_path(f"file://{tmp_path}", None) / "opt outs.txt"
    for form in (str(path), path, path.as_uri(), f"file://{path}", storage):
        exclusions = read(form)
        assert excluded(exclusions, *BOTH, "+447700900003") == [True, True, False]
        assert (ANNA in exclusions, "+447700900003" in exclusions) == (True, False)
        assert exclusions.file == form


@pytest.mark.parametrize(
    "source",
    [BOTH, tuple(BOTH), set(BOTH), frozenset(BOTH), [{NUMBER: ANNA, "since": 2026}, OMAR], dict.fromkeys(BOTH).keys()],
)
def test_a_list_in_every_form(source: Any) -> None:
    exclusions = read(source)
    assert excluded(exclusions, *BOTH, "+447700900003") == [True, True, False]
    assert exclusions.file is None


def test_an_object_storage() -> None:
    store = MemoryFileSystem()
    attach("memory", "consent", store)
    store.pipe("/bucket/opt-outs.txt", f"{ANNA}\n".encode())
    exclusions = Exclusions("memory://bucket/opt-outs.txt", conn_id="consent")
    exclusions.refresh()
    assert excluded(exclusions, *BOTH) == [True, False]


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff", NUMBER, f"{NUMBER},since\n\n", "[]"])
def test_nobody_has_opted_out(tmp_path: Path, content: str) -> None:
    (tmp_path / "opt-outs.txt").write_text(content)
    sources: list[Any] = [tmp_path / "opt-outs.txt", [], set(), None]
    for source in sources:
        assert excluded(read(source), *BOTH) == [False, False]


def test_a_number_that_cannot_be_read_is_not_excluded() -> None:
    exclusions = read(BOTH)
    rows = [Row(1, {}), Row(1, {NUMBER: None}), Row(1, {NUMBER: 447700900001}), Row(1, {NUMBER: "nonsense"})]
    assert [exclusions.excludes(row) for row in rows] == [False] * 4


def test_a_national_form_is_read_in_the_region_of_the_connection(tmp_path: Path) -> None:
    (tmp_path / "opt-outs.txt").write_text("0170 1234567\n")
    exclusions = read(tmp_path / "opt-outs.txt", "DE")
    assert excluded(exclusions, "+491701234567", "0170/1234567", "+49 (0)170 1234567", ANNA) == [True] * 3 + [False]
    assert refusal(tmp_path / "opt-outs.txt") == (
        "exclude: 1 row cannot be read; correct it: row 1, line 1 (017…4567): has no country code; start it with + and "
        "country code, or set default_region in the connection's extra"
    )


# What cannot be read


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    assert refusal(tmp_path / "opt-outs.txt") == f"exclude: no such file: {tmp_path}/opt-outs.txt"


def test_every_number_that_cannot_be_read_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "opt-outs"
    path.write_text(f"{ANNA}\n\n2.01E+11\n{OMAR}\n+44\n")
    assert refusal(path) == (
        "exclude: 2 rows cannot be read; correct them: "
        "row 2, line 3 (2.…11): a spreadsheet turned this number into exponent form (2.01E+11); format the column as "
        "text and export again; "
        "row 4, line 5 (+44): 2 digits after the +; an international number has 8 to 15 and starts with a country code"
    )
    path.write_text(f"{NUMBER},since\n{ANNA},2026\n,2026\n{OMAR},2026,x\n")
    assert refusal(path) == (
        "exclude: 2 rows cannot be read; correct them: "
        "row 2, line 3 (…): empty; write the recipient's number with + and country code; "
        "row 3, line 4 (+44…0002): has 3 fields, but the header has 2"
    )
    path.write_text(f'{{"{NUMBER}": "{ANNA}"}}\n{{"phone": "{ANNA}"}}\n')
    assert refusal(path) == f"exclude: 1 row cannot be read; correct it: row 2, line 2 (None): {NUMBER} is missing"


def test_a_long_list_of_what_cannot_be_read_is_cut() -> None:
    text = refusal([f"nobody {number}" for number in range(50)])
    assert text.startswith("exclude: 50 rows cannot be read; correct them: row 1 (no… 0): contains letters;")
    assert "row 20 (" in text
    assert "row 21 (" not in text
    assert text.endswith("; and 30 more")


def test_the_numbers_of_a_report_that_hides_them() -> None:
    assert refusal(["+44…0001"]) == (
        "exclude: 1 row cannot be read; correct it: row 1 (+4…01): shortened, as in a report or a log; write the whole "
        "number"
    )


def test_a_table_without_its_header(tmp_path: Path) -> None:
    path = tmp_path / "opt-outs.csv"
    path.write_text(f"Anna,{ANNA}\n")
    assert refusal(path) == (
        f"exclude: {path} has no column {NUMBER}; its first line must name the columns, but holds: Anna, …"
    )
    path.write_text(f"phone\n{ANNA}\n")
    assert "row 1, line 1 (phone): contains letters" in refusal(path)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({ANNA: "2026"}, "must be a list of dicts or of numbers, or the path of a file; got dict"),
        (5, "must be a list of dicts or of numbers, or the path of a file; got int"),
        (jinja2.Undefined(name="opt_outs"), "or the path of a file; got Undefined"),
        (jinja2.StrictUndefined(name="opt_outs"), "or the path of a file; got StrictUndefined"),
        (jinja2.ChainableUndefined(name="opt_outs"), "or the path of a file; got ChainableUndefined"),
        (f"['{ANNA}']", "got text that looks like a list; pass the list itself"),
        (iter(BOTH), "can only be read once; pass a list"),
        ("https://example.com/opt-outs?key=secret", "https://example.com/… is a web address; download the file"),
        ("", "no such file: "),
        ("/", " cannot be read: IsADirectoryError"),
    ],
)
def test_what_is_no_list_names_the_parameter(source: Any, words: str) -> None:
    text = refusal(source)
    assert text.startswith("exclude: ")
    assert words in text


# Reading it again


def test_a_file_is_read_again_and_replaced_all_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "opt-outs.txt"
    path.write_text(f"{ANNA}\n")
    exclusions = read(path)
    path.write_text(f"{OMAR}\n{ANNA}\n")
    exclusions.refresh()
    assert excluded(exclusions, *BOTH) == [True, True]
    for damage in (lambda: path.write_text(f"+447700900003\n{ANNA[:6]}"), path.unlink):
        damage()
        with pytest.raises(WasslyInvalidMessage, match=r"^exclude: "):
            exclusions.refresh()
        assert excluded(exclusions, *BOTH, "+447700900003") == [True, True, False]
    path.write_text("")
    exclusions.refresh()
    assert excluded(exclusions, *BOTH) == [False, False]
    exclusions.refresh()
    assert [record.getMessage() for record in caplog.records] == [
        f"Excluding {count} (exclude)" for count in ("1 number", "2 numbers", "0 numbers")
    ]


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), max_size=20), st.lists(st.integers(0, 30), max_size=20))
def test_after_each_reading_it_holds_the_file_and_nothing_else(first: list[int], second: list[int]) -> None:
    store = MemoryFileSystem()
    attach("memory", None, store)
    exclusions = Exclusions("memory://bucket/opt-outs")
    for places in (first, second):
        store.pipe("/bucket/opt-outs", "".join(f"+44 7700 9000{place:02}\n" for place in places).encode())
        exclusions.refresh()
        found = excluded(exclusions, *(f"+4477009000{place:02}" for place in range(31)))
        assert [place for place, is_excluded in enumerate(found) if is_excluded] == sorted(set(places))


def test_opt_outs_take_little_memory(tmp_path: Path) -> None:
    count = 40_000
    (tmp_path / "opt-outs.txt").write_text("".join(f"+4477{number:08}\n" for number in range(count)))

    def held() -> int:
        warm = read([ANNA])  # imports what reads numbers
        with traced():
            exclusions = read(tmp_path / "opt-outs.txt")
            size, _ = tracemalloc.get_traced_memory()
        assert excluded(exclusions, "+447700000001", "+447711111111") == [True, False]
        return size if excluded(warm, ANNA) == [True] else -1

    assert 0 < in_own_process(held) < 31 * count
