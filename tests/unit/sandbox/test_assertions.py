"""The messages of failed assertions, as the test's author reads them."""

from __future__ import annotations

import io
import re
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_wassly.sandbox import Message, Sandbox

NUMBER = "+447700900123"
OTHER = "+447700900199"


class Box(Sandbox):
    """A sandbox that receives its messages without HTTP."""

    def accept(
        self,
        to: str = NUMBER,
        text: str | None = None,
        document: tuple[str, bytes] | None = None,
        media: tuple[str, bytes] | None = None,
        contact_name: str | None = None,
        instance_id: str = "sandbox-instance",
    ) -> Message:
        files = {
            field: self._store.inbox.save(field, file[0], "", io.BytesIO(file[1])) if file else None
            for field, file in {"document": document, "media": media}.items()
        }
        accepted = self._store.accept(
            contact_mobile_number=to,
            contact_name=contact_name,
            message=text,
            instance_id=instance_id,
            document=files["document"],
            media=files["media"],
        )
        assert accepted
        return accepted[0]

    def call(self, endpoint: str, status: int | None, fault: str | None = None, *, finished: bool = True) -> None:
        call = self._store.begin_call(endpoint, 0)
        call.status, call.fault = status, fault
        if finished:
            call.finish()

    def forget_files(self) -> None:
        self._store.inbox.close()


@pytest.fixture
def box() -> Iterator[Box]:
    sandbox = Box()
    sandbox._store.inbox.open()
    yield sandbox
    sandbox.forget_files()


def error(box: Box, **expected: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        box.assert_sent(**expected)
    return str(caught.value)


def text(shown: str) -> str:
    return textwrap.dedent(shown).strip("\n")


# What matches


@pytest.mark.parametrize(
    "written",
    [
        NUMBER,
        "+44 7700 900-123",
        "0044 (7700) 900.123",
        "\u202a+44\u00a07700\u2011900/123\u202c",
        "\uff0b\u0664\u0664 7700 900123",
    ],
)
def test_a_number_may_be_written_in_any_way_with_its_country_code(box: Box, written: str) -> None:
    message = box.accept()
    box.accept(OTHER)
    assert box.assert_sent(to=written) == message


def test_a_text_is_equal_or_holds_what_a_pattern_finds(box: Box) -> None:
    message = box.accept(text="The orders of 2026-11-23")
    box.accept(text="Hello")
    assert box.assert_sent(text="The orders of 2026-11-23") == message
    assert box.assert_sent(text=re.compile(r"orders of \d{4}")) == message
    error(box, text="The orders")
    error(box, text=re.compile(r"^orders"))


@pytest.mark.parametrize("field", ["document", "media"])
def test_a_file_is_told_by_its_name_its_content_or_both(box: Box, field: str, tmp_path: Path) -> None:
    files: list[dict[str, Any]] = [{field: ("a.csv", b"1,2")}, {field: ("b.csv", b"1,2")}, {field: ("c.csv", b"3")}]
    first, _, third = (box.accept(**file) for file in files)
    (tmp_path / "a.csv").write_bytes(b"1,2")
    (tmp_path / "c.csv").write_bytes(b"4")
    assert box.assert_sent(**{field: "a.csv"}) == first
    content: dict[str, Any] = {field: b"3"}
    both: dict[str, Any] = {field: tmp_path / "a.csv"}
    assert box.assert_sent(**content) == third
    assert box.assert_sent(**both) == first
    assert "2 messages match" in error(box, **{field: b"1,2"})
    error(box, **{field: tmp_path / "c.csv"})
    error(box, **{"media" if field == "document" else "document": "a.csv"})


def test_nothing_is_the_same_as_empty(box: Box) -> None:
    message = box.accept(document=("a.csv", b"1"))
    box.accept(text="Hello", contact_name="Ann")
    assert box.assert_sent(text="") == box.assert_sent(contact_name="") == message


def test_all_that_is_given_must_be_right(box: Box) -> None:
    right: dict[str, Any] = {"text": "Hello", "contact_name": "Ann", "instance_id": "second"}
    message = box.accept(**right)
    for field, value in {"to": OTHER, "text": "Bye", "contact_name": "Amy", "instance_id": "third"}.items():
        box.accept(**{**right, field: value})
    assert box.assert_sent(to=NUMBER, **right) == message
    assert "4 messages match" in error(box, text="Hello")


def test_nothing_given_means_one_message_at_all(box: Box) -> None:
    message = box.accept(text="Hello")
    assert box.assert_sent() == message
    box.accept(OTHER, document=("a.csv", b"1,2"))
    assert error(box) == text(f"""
        2 messages were sent, expected one

        sent
           1  {NUMBER}  'Hello'
           2  {OTHER}  document 'a.csv', 3 bytes
        """)


@pytest.mark.parametrize(
    ("wrong", "kind", "reason"),
    [
        ({"to": 447700900123}, TypeError, "to must be a str, not int"),
        (
            {"to": "0170 1234567"},
            ValueError,
            r"to must be a number that starts with \+ or 00 and the country code, not '0170 123",
        ),
        ({"to": ""}, ValueError, "to must be a number"),
        ({"to": f"{NUMBER}, {OTHER}"}, ValueError, "to must be a number"),
        ({"text": 5}, TypeError, "text must be a str or a compiled pattern of str, not int"),
        ({"text": re.compile(b"x")}, TypeError, "text must be a str or a compiled pattern of str, not Pattern"),
        ({"document": True}, TypeError, "document must be a str .*, bytes .* or a pathlib.Path .*, not bool"),
        ({"media": ["a.png"]}, TypeError, "media must be a str .*, not list"),
        ({"media": ""}, ValueError, r"media must not be empty; to check for a file, look at the message's \.media$"),
        ({"contact_name": b"Ann"}, TypeError, "contact_name must be a str, not bytes"),
        ({"instance_id": 7}, TypeError, "instance_id must be a str, not int"),
        ({"document": Path("no-such-file")}, FileNotFoundError, ".*no-such-file"),
    ],
)
def test_what_can_never_be_right_is_named(box: Box, wrong: dict[str, Any], kind: type[Exception], reason: str) -> None:
    box.accept(text="Hello")
    with pytest.raises(kind, match=f"^{reason}"):
        box.assert_sent(**wrong)


# What is shown


def test_the_closest_message_is_compared_field_by_field(box: Box) -> None:
    box.accept(OTHER, "Hello")
    box.accept(text="*Orders of 2026-11-23*\n\n24 orders", document=("orders-2026-11-23.csv", b"1,2"))
    expected = "*Orders of 2026-11-24*\n\n24 orders"
    assert error(box, to=NUMBER, text=expected, document="orders.csv", media="chart.png") == text(f"""
        2 messages were sent, none as expected

        expected
          to            '{NUMBER}'
          text          '*Orders of 2026-11-24*\\n\\n24 orders'
          document      'orders.csv'
          media         'chart.png'

        closest: message 2 of 2
          to            ok       '{NUMBER}'
          text          differs  - expected, + sent
            - *Orders of 2026-11-24*
            ?                     ^
            + *Orders of 2026-11-23*
            ?                     ^

              24 orders
          document      differs  expected  'orders.csv'
                                 sent      'orders-2026-11-23.csv', 3 bytes
          media         differs  expected  'chart.png'
                                 sent      nothing, but 'orders-2026-11-23.csv' as document

        the other message
           1  {OTHER}  'Hello'
        """)


def test_messages_that_are_equally_close_are_both_compared_the_more_alike_first(box: Box) -> None:
    box.accept(OTHER, "Hello Ann")
    box.accept(NUMBER, "Good night")
    box.accept(NUMBER, "Hello Amy")
    shown = error(box, to=NUMBER, text="Hello Ann")
    assert re.findall(r"closest: message (\d) of 3", shown) == ["3", "1"]
    assert re.findall(r"the other message\n +(\d)", shown) == ["2"]


def test_a_message_that_came_twice_is_an_error_that_lists_both(box: Box) -> None:
    box.accept(text="Hello")
    box.accept(OTHER, "Hello")
    box.accept(text="Hello")
    box.call("send", None, "hang_after_accept")  # not a cause, because the message arrived
    assert error(box, to=NUMBER, text="Hello") == text(f"""
        2 messages match, expected one

        expected
          to            '{NUMBER}'
          text          'Hello'

        matching messages
           1  {NUMBER}  'Hello'
           3  {NUMBER}  'Hello'
        """)


def test_contents_are_compared_by_size_and_first_difference(box: Box, tmp_path: Path) -> None:
    box.accept(document=("a.csv", b"x" * 3_000_000 + b"1" + b"y" * 9), media=("b.png", b"12"))
    (tmp_path / "a.csv").write_bytes(b"x" * 3_000_000 + b"2" + b"y" * 10)
    assert error(box, document=tmp_path / "a.csv", media=b"123") == text("""
        1 message was sent, not the expected one

        expected
          document      'a.csv', 3,000,011 bytes
          media         3 bytes

        closest: message 1 of 1
          document      differs  expected  'a.csv', 3,000,011 bytes
                                 sent      'a.csv', 3,000,010 bytes
                                 the content differs from offset 3,000,000
                                 expected  b'2yyyyyyyyyy'
                                 sent      b'1yyyyyyyyy'
          media         differs  expected  3 bytes
                                 sent      'b.png', 2 bytes
                                 the content differs from offset 2
                                 expected  b'3'
                                 sent      end of file
        """)


def test_a_file_of_another_name_may_have_the_right_content(box: Box, tmp_path: Path) -> None:
    box.accept(document=("b.csv", b"1"))
    (tmp_path / "a.csv").write_bytes(b"1")
    assert "the content is the same" in error(box, document=tmp_path / "a.csv")


def test_contents_can_be_compared_after_the_end_as_far_as_they_are_known(box: Box) -> None:
    message = box.accept(document=("a.csv", b"1,2"))
    box.forget_files()
    assert box.assert_sent(document=b"1,2") == message
    assert "the content differs; the sent file is no longer available" in error(box, document=b"1,3")


def test_a_pattern_is_shown_with_the_text_in_which_it_was_not_found(box: Box) -> None:
    box.accept(text="*Orders of 2026-11-23*\n24 orders, 6,007 € in all. The list is attached.")
    assert text(r"""
          text          differs  expected  a match of '^\\d+ order$'
                                 sent
            *Orders of 2026-11-23*
            24 orders, 6,007 € in all. The list is attached.
        """) in textwrap.dedent(error(box, text=re.compile(r"^\d+ order$")).partition("closest: message 1 of 1\n")[2])


@pytest.mark.parametrize(
    ("expected", "sent", "shown"),
    [
        ("Hello there", "Hello\u00a0there", "+ Hello\\xa0there"),
        ("one\ntwo", "one\r\ntwo", "+ one\\r"),
        ("A\tB", "A\\tB", "+ A\\\\tB"),
        ("Hello", "Hello\u200f", "+ Hello\\u200f"),
        ("Hello", "Hello\ud800", "+ Hello\\ud800"),
    ],
)
def test_what_cannot_be_seen_is_written_out_in_the_comparison(box: Box, expected: str, sent: str, shown: str) -> None:
    box.accept(text=sent)
    assert f"    {shown}\n" in f"{error(box, text=expected)}\n"


def test_names_that_look_the_same_can_be_told_from_each_other(box: Box) -> None:
    box.accept(document=("re\u0301sume\u0301.pdf", b"1"), contact_name="A" * 90 + "B")
    shown = error(box, document="r\u00e9sum\u00e9.pdf", contact_name="A" * 90 + "C")
    assert "expected  'r\\xe9sum\\xe9.pdf'" in shown
    assert "sent      're\\u0301sume\\u0301.pdf', 1 byte" in shown
    assert f"expected  …'{'A' * 30}C'" in shown
    assert f"sent      …'{'A' * 30}B'" in shown


# When nothing was sent


@pytest.mark.parametrize(
    ("calls", "reasons"),
    [
        ([], ["nothing called the sandbox: did the task run, and does its connection point to the sandbox?"]),
        ([("send", 422, None)], ["1 call to send got status 422"]),
        ([("login", 200, None), ("send", 422, None), ("send", 422, None)], ["2 calls to send got status 422"]),
        ([("login", 401, None)], ["1 call to login got status 401", "send was not called"]),
        ([("login", 200, None), ("devices", 200, None)], ["send was not called"]),
        ([("send", 500, "http_500")], ["1 call to send got status 500 (fault http_500)"]),
        ([("send", None, "reset_mid_body")], ["1 call to send got no answer (fault reset_mid_body)"]),
        ([("send", 200, None)], ["1 call to send got status 200 with success: false"]),
    ],
)
def test_when_nothing_was_sent_the_calls_that_failed_are_told(
    box: Box, calls: list[tuple[str, int | None, str | None]], reasons: list[str]
) -> None:
    for call in calls:
        box.call(*call)
    lines = ["no message was sent, expected one", "", "expected", "  text          'Hello'", "", "possible causes"]
    assert error(box, text="Hello").splitlines() == [*lines, *(f"  {reason}" for reason in reasons)]


def test_a_call_that_is_under_way_is_told(box: Box) -> None:
    box.call("send", None, "hang_after_accept", finished=False)
    assert "1 call to send still running (fault hang_after_accept)" in error(box)


def test_what_keeps_the_sandbox_from_accepting_is_told(box: Box) -> None:
    box.call("send", 200)
    box.disconnect_device("sandbox-instance")
    box.conversations = 0
    assert error(box).endswith("  no conversations remain\n  device sandbox-instance is disconnected")


def test_a_call_that_failed_is_told_beside_a_message_that_is_not_the_one(box: Box) -> None:
    box.call("send", 200)
    box.accept(text="Hello Ann")
    box.call("send", 422)
    assert error(box, text="Hello Amy").endswith("\n\npossible causes\n  1 call to send got status 422")


# It stays short


def test_many_messages_are_counted(box: Box) -> None:
    for number in range(1000):
        box.accept(text=f"Message {number}")
    shown = error(box, text="Nothing like it")
    assert "1,000 messages were sent, none as expected" in shown
    assert "\n  … and 994 more" in shown
    assert len(shown.splitlines()) < 25
    assert "\n  … and 995 more" in error(box, text=re.compile("Message"))


@pytest.mark.parametrize(
    ("expected", "sent"),
    [
        ("x" * 100_000, "y" * 100_000),
        ("x" * 100_000, "x" * 99_999),
        ("\n".join("line" for _ in range(5000)), "\n".join("enil" for _ in range(5000))),
        ("\n".join(f"{n * 7919:060}" for n in range(3000)), "\n".join(f"{n * 104729:060}" for n in range(3000))),
        ("\n".join(f"line {n}" for n in range(3000)), "\n".join(f"line {n}{n % 7 == 0}" for n in range(3000))),
    ],
)
def test_long_texts_are_cut_and_cost_no_time(box: Box, expected: str, sent: str) -> None:
    box.accept(to=NUMBER, text=sent)
    start = time.perf_counter()
    shown = error(box, to=NUMBER, text=expected)
    assert time.perf_counter() - start < 5
    assert len(shown.splitlines()) < 45
    assert max(map(len, shown.splitlines())) < 120
    assert re.search(r"\n    - ", shown) or re.search(r"\n    \+ ", shown)


def test_a_difference_far_inside_of_a_long_text_is_shown(box: Box) -> None:
    box.accept(text="same\n" * 500 + "Hello Ann\n" + "same\n" * 20)
    assert text("""
          text          differs  - expected, + sent
              … 498 equal lines
              same
              same
            - Hello Amy
            ?        ^^
            + Hello Ann
            ?        ^^
        """) in textwrap.dedent(
        error(box, text="same\n" * 500 + "Hello Amy\n" + "same\n" * 20).partition("closest: message 1 of 1\n")[2]
    )
