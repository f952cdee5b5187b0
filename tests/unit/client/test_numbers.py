from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly.client import WasslyConfigError, WasslyInvalidMessage
from airflow_provider_wassly.client.numbers import check_region, normalize, shorten


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("+491701234567", "+491701234567"),
        ("00491701234567", "+491701234567"),
        (" +49 (170) 123-45.67/8 ", "+4917012345678"),
        ("+49\u00a0170\u202f1234567", "+491701234567"),
        ("+49‑170–123—4567", "+491701234567"),
        ("\u202a+49 170 1234567\u202c", "+491701234567"),
        ("\ufeff+491701234567\u200b", "+491701234567"),
        ("+491701234567\n", "+491701234567"),
        ("＋491701234567", "+491701234567"),
        ("+٢٠١٠٠١٢٣٤٥٦٧", "+201001234567"),
        ("٠٠٢٠١٠٠١٢٣٤٥٦٧", "+201001234567"),
        ("+۹۸۹۱۲۱۲۳۴۵۶۷", "+989121234567"),
        ("+52 1 55 1234 5678", "+5215512345678"),
        ("+32 2 345.67.00", "+3223456700"),
        ("+12345678", "+12345678"),
        ("+123456789012345", "+123456789012345"),
    ],
)
def test_an_international_number_is_sent_as_its_digits(written: str, sent: str) -> None:
    assert normalize(written) == sent
    assert normalize(written, "EG") == sent


@pytest.mark.parametrize(
    ("written", "region", "sent"),
    [
        ("0170 1234567", "DE", "+491701234567"),
        ("0170 1234567", "de", "+491701234567"),
        ("170 1234567", "DE", "+491701234567"),
        ("0100 123 4567", "EG", "+201001234567"),
        ("٠١٠٠١٢٣٤٥٦٧", "EG", "+201001234567"),
        ("(201) 555-0123", "US", "+12015550123"),
        ("1 201 555 0123", "US", "+12015550123"),
        ("06 12 34 56 78", "FR", "+33612345678"),
        ("55 1234 5678", "MX", "+525512345678"),
    ],
)
def test_a_national_number_is_read_in_the_default_region(written: str, region: str, sent: str) -> None:
    assert normalize(written, region) == sent


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (None, "empty"),
        ("", "empty"),
        ("   ", "no digits"),
        ("+", "no digits"),
        ("\u200b", "no digits"),
        ("0170 1234567", "no country code.*default_region"),
        ("4917012345678", "no country code"),
        ("+1234567", "7 digits"),
        ("+1234567890123456", "16 digits"),
        ("+0491701234567", "country code"),
        ("000491701234567", "country code"),
        ("2.01E+11", "exponent form"),
        ("2,01e+11", "exponent form"),
        ("+2.01E+11", "exponent form"),
        ("2E11", "exponent form"),
        ("491701234567.0", r"ends in \.0"),
        ("+491701234567.0", r"ends in \.0"),
        ("00491701234567,00", r"ends in \.0"),
        ("+49 170 1234567.0", r"ends in \.0"),
        (491701234567.0, "floating-point"),
        (491701234567, "type int"),
        (True, "type bool"),
        (b"+491701234567", "type bytes"),
        (["+491701234567"], r"a list.*\.expand\("),
        (("+491701234567",), "a list"),
        ({"+491701234567"}, "a list"),
        ({"number": "+491701234567"}, "a list"),
        ("+491701234567, +491701234568", "more than one number.*expand"),
        ("+491701234567;+491701234568", "more than one number"),
        ("+491701234567\n+491701234568", "more than one number"),
        ("+491701234567 +491701234568", "more than one number"),
        ("['+491701234567']", "holds '\\['"),
        ("123456789-987654@g.us", "WhatsApp group id"),
        ("491701234567@c.us", "WhatsApp id"),
        ("a@example.com", "e-mail"),
        ("+49 170 1234567 ext. 5", "letters"),
        ("+49 170 1234567x5", "letters"),
        ("tel:+491701234567", "letters"),
        ("1-800-FLOWERS", "letters"),
        ("+49 (0) 170 1234567", r"\(0\)"),
        ("+49 ( 0 ) 170 1234567", r"\(0\)"),
        ("+20 (٠) 100 1234567", r"\(0\)"),
        ("+49 170 12345#67", "holds '#'"),
        ("49+1701234567", "holds '\\+'"),
        ("+49170½1234567", "holds '½'"),
        ("{{ params.number }}", "letters"),
    ],
)
def test_what_is_no_phone_number_is_refused_with_its_reason(written: object, reason: str) -> None:
    with pytest.raises(WasslyInvalidMessage, match=reason) as caught:
        normalize(written)
    assert caught.value.field == "contact_mobile_number"
    assert "contact_mobile_number" in str(caught.value)


@pytest.mark.parametrize(
    ("written", "region", "reason"),
    [
        ("0170", "DE", "not a number of DE"),
        ("0000", "US", "digits after the"),
        ("999999999999", "DE", "not a number of DE"),
        ("12", "DE", "DE"),
        ("0170 1234567", "XX", "default_region"),
    ],
)
def test_a_national_number_that_is_none(written: str, region: str, reason: str) -> None:
    with pytest.raises((WasslyInvalidMessage, WasslyConfigError), match=reason):
        normalize(written, region)


def test_a_number_that_can_be_read_both_ways_is_refused() -> None:
    with pytest.raises(WasslyInvalidMessage, match="with and without the country code 49"):
        normalize("491701234567", "DE")


def test_a_number_that_no_plan_knows_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert normalize("+999 12345678") == "+99912345678"
    assert "does not look like a phone number" in caplog.text
    assert "+99…5678" in caplog.text
    assert "99912345678" not in caplog.text


def test_a_usual_number_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    normalize("+491701234567")
    normalize("0170 1234567", "DE")
    assert caplog.records == []


def test_how_log_lines_show_a_number() -> None:
    assert shorten("+491701234567") == "+49…4567"
    assert shorten("+1234567") == "…"


@pytest.mark.parametrize("region", ["", "D", "Germany", "XX", "49", "+49"])
def test_a_region_that_is_none(region: str) -> None:
    with pytest.raises(WasslyConfigError, match="default_region"):
        check_region(region)


NUMBERLIKE = st.text(st.sampled_from("+00123456789٠١٢٣ -./()eE,;@x\u200b\n"), max_size=24)


@settings(max_examples=500, deadline=None)
@given(text=st.one_of(st.text(), NUMBERLIKE), region=st.sampled_from([None, "DE", "EG", "MX", "US"]))
def test_any_text_is_one_number_or_refused(text: str, region: str | None) -> None:
    try:
        number = normalize(text, region)
    except WasslyInvalidMessage:
        return
    assert re.fullmatch(r"\+[1-9][0-9]{7,14}", number)
    assert normalize(number) == number


@settings(max_examples=200, deadline=None)
@given(
    digits=st.from_regex(r"[1-9][0-9]{7,14}", fullmatch=True),
    prefix=st.sampled_from(["+", "00", "＋", " + ", "00 "]),
    data=st.data(),
)
def test_separators_do_not_change_a_number(digits: str, prefix: str, data: st.DataObject) -> None:
    between = data.draw(
        st.lists(st.sampled_from(["", " ", "-", "\u00a0", "/"]), min_size=len(digits), max_size=len(digits))
    )
    written = prefix + "".join(digit + separator for digit, separator in zip(digits, between, strict=True))
    assert normalize(written) == f"+{digits}"


@given(
    value=st.one_of(st.integers(), st.floats(), st.binary(), st.lists(st.text()), st.dictionaries(st.text(), st.text()))
)
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(WasslyInvalidMessage):
        normalize(value)


def test_the_library_is_loaded_only_when_a_number_is_parsed() -> None:
    program = "import airflow_provider_wassly.client, sys; sys.exit('phonenumbers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
