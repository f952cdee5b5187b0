"""Turn phone numbers as people write them into the form that the API takes."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, NamedTuple

from airflow_provider_wassly.client.errors import WasslyConfigError, WasslyInvalidMessage

_SEPARATORS = frozenset(" -./()\u00a0\u2007\u202f\u2009\u200a\u2010\u2011\u2012\u2013\u2014\u2212\t")
#: Marks without width, which come along when somebody copies a number out of a chat or a right-to-left text.
_INVISIBLE = dict.fromkeys(
    map(ord, "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")
)
_SCHEME = re.compile(r"(?:tel|whatsapp)\s*:\s*", re.IGNORECASE)
_PLAIN = re.compile(r"\+?[0-9]+")
_OPTIONAL_ZERO = re.compile(r"\(\s*0\s*\)")
#: What may precede ``(0)``: nothing, or a country code.
_COUNTRY_CODE = re.compile(r"(?:(?:\+|00)\D*(?:\d\D*){1,3})?")
_EXPONENT = re.compile(r"\+?\d(?:[.,]\d+)?[eE][+-]?\d+")
#: After grouped digits, ``.00`` may be one more group, but nobody writes groups of one digit.
_TRAILING_DECIMALS = re.compile(r"\+?\d{5,}[.,]0+|.*\d[.,]0")
#: Nobody has a number of so few digits.
_TOO_SHORT = 5
_FIELD = "contact_mobile_number"
_EXPORT_AS_TEXT = "format the column as text and export again"
_ONE_RECIPIENT = (
    "one message has one recipient. Use WasslyBroadcastOperator, or .expand(contact_mobile_number=…) for a few"
)


class ReadNumber(NamedTuple):
    """
    A number as it is sent.

    :param number: ``+`` and 8 to 15 digits.
    :param warning: a warning to be logged before sending, with the number shortened; usually empty.
    """

    number: str
    warning: str = ""


def shorten(number: str) -> str:
    """
    Return a number as log lines may show it: ``+491701234567`` becomes ``+49…4567``.

    :param number: a number in any form. Of a text that cannot be one, the result shows enough to find it in a list.
    """
    # Nothing in a list may break a log line.
    shown = "".join(char if char.isprintable() else "?" for char in number.translate(_INVISIBLE).strip())
    if len(shown) > 8:
        return f"{shown[:3]}…{shown[-4:]}"
    if len(shown) > _TOO_SHORT:
        return f"{shown[:2]}…{shown[-2:]}"
    return shown or "…"


def normalize(number: Any, default_region: str | None = None) -> str:
    """
    Return the number from :func:`read`, without its warning.

    :param number: see :func:`read`.
    :param default_region: see :func:`read`.
    :return: ``+`` and 8 to 15 digits.
    :raises WasslyInvalidMessage: when this is not exactly one phone number; the text says why.
    """
    return read(number, default_region).number


def read(number: Any, default_region: str | None = None) -> ReadNumber:
    """
    Read a phone number as people write it.

    Spaces, dashes, dots, slashes and brackets between the digits are removed, as are ``tel:``, ``whatsapp:`` or the
    apostrophe of a spreadsheet in front, and a trunk prefix after the country code (``+44 07700 900123``).

    :param number: with a leading ``+`` or ``00`` and country code, or in the national form of ``default_region``.
    :param default_region: two-letter country code (ISO 3166-1) for numbers without a country code. Default: such
        numbers are refused.
    :raises WasslyInvalidMessage: when this is not exactly one phone number; the text says why.
    """
    text = _cleaned(_one_text(number))
    if _OPTIONAL_ZERO.search(text):
        return _with_or_without_zero(text, default_region)
    return _read_cleaned(text, default_region)


def check_region(region: str) -> str:
    """
    Return ``region`` in capitals.

    :param region: a two-letter country code (ISO 3166-1).
    :raises WasslyConfigError: when there is no such country.
    """
    import phonenumbers

    known = region.strip().upper()
    if known not in phonenumbers.SUPPORTED_REGIONS:
        raise WasslyConfigError(
            f"default_region: {region!r} is not a two-letter country code such as 'DE', 'EG' or 'US'"
        )
    return known


def _invalid(reason: str) -> WasslyInvalidMessage:
    return WasslyInvalidMessage(reason, field=_FIELD)


def _one_text(number: Any) -> str:
    """Return ``number`` if it is text; refuse lists and numeric types, which lose digits."""
    if number is None or number == "":
        raise _invalid("empty; write the recipient's number with + and country code")
    if isinstance(number, (list, tuple, set, frozenset, dict)):
        raise _invalid(f"a list; {_ONE_RECIPIENT}")
    if isinstance(number, float):
        raise _invalid(f"a spreadsheet turned this number into a floating-point number; {_EXPORT_AS_TEXT}")
    if not isinstance(number, str):
        raise _invalid(f"must be text with country code, not {type(number).__name__}, which drops a leading + or 0")
    return number


def _cleaned(text: str) -> str:
    """Return ``text`` without invisible marks, apostrophe and ``tel:``, its digits as 0 to 9."""
    # The apostrophe keeps spreadsheets from calculating +44-7700-900123.
    text = text.translate(_INVISIBLE).strip().removeprefix("'").lstrip().replace("\uff0b", "+")
    if not text.isascii():
        # Digits of any script become 0 to 9.
        text = "".join(char if (digit := unicodedata.decimal(char, None)) is None else str(digit) for char in text)
    scheme = _SCHEME.match(text)
    return text[scheme.end() :] if scheme else text


def _with_or_without_zero(text: str, default_region: str | None) -> ReadNumber:
    """Read ``+49 (0)170 …``. Italy dials the 0 after a country code; most countries do not."""
    before, after = _OPTIONAL_ZERO.split(text, maxsplit=1)
    readings: list[ReadNumber] = []
    for zero in ("0", ""):
        try:
            reading = _read_cleaned(before + zero + after, default_region)
        except WasslyInvalidMessage as error:
            invalid = error
        else:
            readings.append(reading if zero else _repaired(reading.number))
    if not readings:
        raise invalid
    if _COUNTRY_CODE.fullmatch(before):
        if len(readings) == 2 and readings[0].number == readings[1].number:
            return readings[0]
        valid = [reading for reading in readings if _is_valid(reading.number)]
        if len(valid) == 1:
            return valid[0]
    raise _invalid("contains (0), which some countries dial and others do not; write a plain 0 or leave it out")


def _is_valid(number: str) -> bool:
    import phonenumbers

    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return False


def _read_cleaned(text: str, default_region: str | None) -> ReadNumber:
    plain = _plain(text)
    if plain.startswith("+"):
        return _international(plain[1:])
    if plain.startswith("00"):
        return _international(plain[2:])
    return ReadNumber(_national(plain, default_region))


def _plain(text: str) -> str:
    """Return the number without separators; refuse everything that is not exactly one phone number."""
    if _PLAIN.fullmatch(text):
        return text
    if "…" in text:
        raise _invalid("shortened, as in a report or a log; write the whole number")
    if "@" in text:
        kind = "a WhatsApp group id" if text.endswith("@g.us") else "a WhatsApp id or an e-mail address"
        raise _invalid(f"{kind}, not a phone number")
    if _EXPONENT.fullmatch(text):
        raise _invalid(f"a spreadsheet turned this number into exponent form (2.01E+11); {_EXPORT_AS_TEXT}")
    if _TRAILING_DECIMALS.fullmatch(text):
        raise _invalid(f"ends in .0, added by a spreadsheet; {_EXPORT_AS_TEXT}")
    if ";" in text and text.partition(";")[2].lower().startswith(("ext=", "phone-context=", "isub=")):
        raise _invalid("contains an extension; remove it")
    if re.search(r"[,;|\n\r]", text) or text.count("+") > 1:
        raise _invalid(f"more than one number; {_ONE_RECIPIENT}")
    if any(char.isalpha() for char in text):
        raise _invalid("contains letters; remove any name or extension")
    plain = ""
    for char in text:
        if char in _SEPARATORS:
            continue
        if not (char in "0123456789" or (char == "+" and not plain)):
            raise _invalid(f"contains {char!r}, which is not part of a phone number")
        plain += char
    if plain in {"", "+"}:
        raise _invalid("contains no digits")
    return plain


def _national(digits: str, default_region: str | None) -> str:
    if default_region is None:
        raise _invalid(
            "has no country code; start it with + and country code, or set default_region in the connection's extra"
        )
    import phonenumbers

    region = check_region(default_region)
    try:
        parsed = phonenumbers.parse(digits, region)
    except phonenumbers.NumberParseException as error:
        raise _invalid(f"not a number in {region}: {error}") from None
    e164 = str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))
    # A shorter number can be valid from a landline in the same town, but not on WhatsApp.
    if not phonenumbers.is_valid_number(parsed) or not 8 <= len(e164) - 1 <= 15:
        raise _invalid(f"not a number in {region}; if it belongs to another country, start it with + and country code")
    # 4917012345678 is a valid national number in Germany but more likely an international one without its +.
    code = str(phonenumbers.country_code_for_region(region))
    if digits.startswith(code) and e164 != f"+{digits}":
        international = phonenumbers.parse(f"+{digits}")
        if phonenumbers.is_valid_number(international):
            raise _invalid(
                f"{code} may or may not be the country code here; start the number with + or with the national prefix"
            )
    return e164


def _international(digits: str) -> ReadNumber:
    """Read a number that starts with its country code."""
    written = f"+{digits}"
    found = _without_trunk_prefix(written)
    count = len(found.number) - 1
    if not 8 <= count <= 15 or digits.startswith("0"):
        where = "after the +" if found.number == written else "without its trunk prefix"
        raise _invalid(f"{count} digits {where}; an international number has 8 to 15 and starts with a country code")
    return found


def _without_trunk_prefix(number: str) -> ReadNumber:
    """Return an international number, with a warning if it had a trunk prefix or looks impossible."""
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        parsed = None
    if parsed is None or not phonenumbers.is_possible_number(parsed):
        # Only a warning: WhatsApp has numbers that the library calls impossible, such as Mexico's +52 1 …
        return ReadNumber(
            number, f"Sending to {shorten(number)}, which does not look like a phone number of any country"
        )
    # The library removes a trunk prefix if the rest can be a number.
    repaired = str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))
    if repaired == number:
        return ReadNumber(number)
    # Some numbers in Belarus start with the digits of its trunk prefix. So do Mexico's in older metadata.
    national = number[1 + len(str(parsed.country_code)) :]
    as_written = phonenumbers.PhoneNumber(
        country_code=parsed.country_code, national_number=int(national), italian_leading_zero=national.startswith("0")
    )
    if phonenumbers.is_valid_number(as_written):
        return ReadNumber(number)
    # Again, because some people write it twice.
    return _repaired(_without_trunk_prefix(repaired).number)


def _repaired(number: str) -> ReadNumber:
    return ReadNumber(
        number,
        f"Sending to {shorten(number)}: removed its trunk prefix, such as (0), which is not dialled from abroad",
    )
