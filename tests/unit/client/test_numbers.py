from __future__ import annotations

import re
import subprocess
import sys

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly.client import WasslyConfigError, WasslyInvalidMessage
from airflow_provider_wassly.client.numbers import check_region, normalize, read, shorten


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
        # In Italy, a landline's 0 is always dialled.
        ("+39 (0) 2 1234 5678", "+390212345678"),
        ("tel:+49-170-1234567", "+491701234567"),
        ("Tel: 0049 170 1234567", "+491701234567"),
        ("whatsapp:+491701234567", "+491701234567"),
        ("\ufeffWhatsApp:+٤٩ 170 1234567", "+491701234567"),
        # As spreadsheets keep it text, and as report and unsent keep it from being calculated.
        ("'+49-170-1234567", "+491701234567"),
        (" ' +49 170 1234567", "+491701234567"),
        ("'\u2060＋49-170-1234567", "+491701234567"),
        ("'00491701234567", "+491701234567"),
    ],
)
def test_an_international_number_is_sent_as_its_digits(written: str, sent: str) -> None:
    assert normalize(written) == sent
    assert "trunk prefix" not in read(written).warning
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
        ("(0) 170 1234567", "DE", "+491701234567"),
        ("tel:0170-1234567", "DE", "+491701234567"),
        ("'0170-1234567", "DE", "+491701234567"),
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
        ("2.01E+11", "a spreadsheet turned this number into exponent form .*; format the column as text"),
        ("2,01e+11", "exponent form"),
        ("+2.01E+11", "exponent form"),
        ("2E11", "exponent form"),
        ("491701234567.0", r"ends in \.0, added by a spreadsheet; format the column as text"),
        ("+491701234567.0", r"ends in \.0"),
        ("00491701234567,00", r"ends in \.0"),
        ("+49 170 1234567.0", r"ends in \.0"),
        (491701234567.0, "a spreadsheet turned this number into a floating-point number; format the column"),
        (491701234567, "not int"),
        (True, "not bool"),
        (b"+491701234567", "not bytes"),
        (["+491701234567"], r"a list.*\.expand\("),
        (("+491701234567",), "a list"),
        ({"+491701234567"}, "a list"),
        ({"number": "+491701234567"}, "a list"),
        ("+491701234567, +491701234568", "more than one number.*expand"),
        ("+491701234567;+491701234568", "more than one number"),
        ("tel:+49-170-1234567;ext=5", "contains an extension"),
        ("+491701234567\n+491701234568", "more than one number"),
        ("+491701234567 +491701234568", "more than one number"),
        ("['+491701234567']", "contains '\\['"),
        ("123456789-987654@g.us", "WhatsApp group id"),
        ("491701234567@c.us", "WhatsApp id"),
        ("a@example.com", "e-mail"),
        ("+49 170 1234567 ext. 5", "letters"),
        ("+49 170 1234567x5", "letters"),
        ("tel:", "no digits"),
        ("fax:+491701234567", "letters"),
        ("tel:+491701234567, tel:+491701234568", "more than one number"),
        ("whatsapp:491701234567@c.us", "WhatsApp id"),
        ("1-800-FLOWERS", "letters"),
        ("+39 (0) 322 345678", r"\(0\)"),
        ("+49 170 (0) 1234567", r"\(0\)"),
        ("+33 6 12 34 (0) 56 78", r"\(0\)"),
        ("+49 (0) 170 1234567 or 8", "letters"),
        ("+49 (0) 170 1234567, +49 (0) 170 1234568", "more than one number"),
        ("+49 (0) 170", "digits after the"),
        ("+49 0 12345", "7 digits without its trunk prefix"),
        ("+98000000", "digits without its trunk prefix"),
        ("(0) 170 1234567", "no country code"),
        ("+49 170 12345#67", "contains '#'"),
        ("49+1701234567", "contains '\\+'"),
        ("''+491701234567", 'contains "\'"'),
        ("+4917012345'67", 'contains "\'"'),
        ("'", "no digits"),
        ("+49…4567", "shortened, as in a report or a log; write the whole number"),
        ("+4…67", "shortened"),
        ("…", "shortened"),
        ("+49170½1234567", "contains '½'"),
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
        ("0170", "DE", "not a number in DE"),
        ("0000", "US", "digits after the"),
        ("999999999999", "DE", "not a number in DE"),
        ("12", "DE", "DE"),
        ("0170 1234567", "XX", "default_region"),
    ],
)
def test_a_national_number_that_is_none(written: str, region: str, reason: str) -> None:
    with pytest.raises((WasslyInvalidMessage, WasslyConfigError), match=reason):
        normalize(written, region)


def test_a_number_that_can_be_read_both_ways_is_refused() -> None:
    with pytest.raises(WasslyInvalidMessage, match="49 may or may not be the country code"):
        normalize("491701234567", "DE")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("+44 07700 900123", "+447700900123"),
        ("0044 (0)7700 900123", "+447700900123"),
        ("+44 (07700) 900123", "+447700900123"),
        ("tel:+44-(0)7700-900123", "+447700900123"),
        ("+49 0170 1234567", "+491701234567"),
        ("+49 (0) 170 1234567", "+491701234567"),
        ("+49 00170 1234567", "+491701234567"),
        ("+20 (٠) 100 1234567", "+201001234567"),
        ("+54 11 15 2345 6789", "+5491123456789"),
        ("+54 011 15 2345 6789", "+5491123456789"),
        ("+36 06 20 123 4567", "+36201234567"),
        ("+7 8 912 345 67 89", "+79123456789"),
        ("+1 1 201 555 0123", "+12015550123"),
        ("+1 (0) 201 555 0123", "+12015550123"),
        ("+57 (0) 321 123 4567", "+573211234567"),
        ("+39 (0) 06 698 12345", "+390669812345"),
        # One digit too many, with the 0.
        ("+43 0 1234567890123", "+431234567890123"),
    ],
)
def test_a_trunk_prefix_after_the_country_code_is_taken_out(written: str, meant: str) -> None:
    found = read(written)
    assert found.number == meant
    assert f"{meant[:3]}…{meant[-4:]}" in found.warning
    assert "trunk prefix" in found.warning
    assert meant[1:] not in found.warning
    assert normalize(written) == meant
    assert read(meant) == (meant, "")


@pytest.mark.parametrize(
    "number",
    [
        "+5215512345678",  # WhatsApp's form of Mexican numbers; the 1 has gone from the numbering plan
        "+5212225550123",
        "+5511912345678",
        "+551187654321",  # Brazil without the ninth digit, as WhatsApp has old numbers
        "+5491123456789",
        "+390312345678",
        "+393123456789",
        "+22997123456",  # Benin before 2024
        "+3758101234567",  # a premium number in Belarus as it is, a landline without the 8
    ],
)
def test_a_number_that_could_lose_a_digit_is_sent_as_it_is(number: str) -> None:
    assert read(number).number == number


KINDS = set(phonenumbers.PhoneNumberType.values()) - {phonenumbers.PhoneNumberType.UNKNOWN}
E164 = phonenumbers.PhoneNumberFormat.E164


def test_no_example_number_of_any_region_is_changed() -> None:
    examples = [
        phonenumbers.example_number_for_type(region, kind)
        for region in phonenumbers.SUPPORTED_REGIONS
        for kind in KINDS
    ]
    examples += map(phonenumbers.example_number_for_non_geo_entity, phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS)
    numbers = {phonenumbers.format_number(example, E164) for example in examples if example is not None}
    long_enough = {number for number in numbers if len(number) > 8}
    assert len(long_enough) > 900
    assert {number: found for number in long_enough if (found := read(number)) != (number, "")} == {}


#: After a 0, the library takes the first digit of a Colombian mobile number for a carrier code.
NOT_MENDED = {"CO"}


def test_a_trunk_prefix_is_taken_out_in_every_region() -> None:
    mended: set[str] = set()
    left: set[str] = set()
    for region in phonenumbers.SUPPORTED_REGIONS:
        example = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
        prefix = phonenumbers.ndd_prefix_for_region(region, True)
        if example is None or not prefix:
            continue
        meant = phonenumbers.format_number(example, E164)
        code = f"+{example.country_code}"
        found = read(f"{code} {prefix} {meant.removeprefix(code)}")
        (mended if found.number == meant and found.warning else left).add(region)
        if prefix == "0":
            assert normalize(f"{code} (0) {meant.removeprefix(code)}") == meant
    assert len(mended) > 140
    assert left <= NOT_MENDED


def test_a_number_that_no_plan_knows_is_a_warning() -> None:
    number, warning = read("+999 12345678")
    assert number == "+99912345678"
    assert "does not look like a phone number" in warning
    assert "+99…5678" in warning
    assert "99912345678" not in warning


def test_a_usual_number_is_no_warning() -> None:
    assert read("+491701234567") == read("0170 1234567", "DE") == ("+491701234567", "")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("+491701234567", "+49…4567"),
        (" +49 170 1234567 ", "+49…4567"),
        ("\u202a+49 170 1234567\u202c", "+49…4567"),
        ("+12345678", "+12…5678"),
        ("ann@example.com", "ann….com"),
        # A value too short to be a phone number is shown whole, so that it can be found in the list.
        ("12", "12"),
        ("n/a", "n/a"),
        ("01701", "01701"),
        ("nonsense", "no…se"),
        ("+1234567", "+1…67"),
        ("123456", "12…56"),
        ("1\n2", "1?2"),
        ("", "…"),
        (" \u200b", "…"),
    ],
)
def test_how_log_lines_show_a_number(written: str, shown: str) -> None:
    assert shorten(written) == shown


@given(st.from_regex(r"\+?[0-9]{6,20}", fullmatch=True))
def test_no_number_of_a_person_stands_in_a_log_in_full(number: str) -> None:
    assert number not in shorten(number)
    assert len(number) - len(shorten(number).replace("…", "")) >= 2


@pytest.mark.parametrize("region", ["", "D", "Germany", "XX", "49", "+49"])
def test_a_region_that_is_none(region: str) -> None:
    with pytest.raises(WasslyConfigError, match="default_region"):
        check_region(region)


NUMBERLIKE = st.text(st.sampled_from("+00123456789٠١٢٣ -./()eE,;@x'…\u200b\n"), max_size=24)


@settings(max_examples=500, deadline=None)
@given(text=st.one_of(st.text(), NUMBERLIKE), region=st.sampled_from([None, "DE", "EG", "MX", "US"]))
def test_any_text_is_one_number_or_refused(text: str, region: str | None) -> None:
    try:
        number = normalize(text, region)
    except WasslyInvalidMessage:
        return
    assert re.fullmatch(r"\+[1-9][0-9]{7,14}", number)
    assert normalize(number) == number


def _read_or_refused(written: str) -> object:
    try:
        return read(written)
    except WasslyInvalidMessage as error:
        return str(error)


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
    assert _read_or_refused(written) == _read_or_refused(f"+{digits}")


@given(
    value=st.one_of(st.integers(), st.floats(), st.binary(), st.lists(st.text()), st.dictionaries(st.text(), st.text()))
)
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(WasslyInvalidMessage):
        normalize(value)


def test_the_library_is_loaded_only_when_a_number_is_parsed() -> None:
    program = "import airflow_provider_wassly.client, sys; sys.exit('phonenumbers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
