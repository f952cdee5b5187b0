"""Phone numbers as people write them, turned into the form that the API takes."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, NamedTuple

from airflow_provider_wassly.client.errors import WasslyConfigError, WasslyInvalidMessage

_SEPARATORS = frozenset(" -./()\u00a0\u2007\u202f\u2009\u200a\u2010\u2011\u2012\u2013\u2014\u2212\t")
#: Marks without width that come along when a number is copied out of a chat or a right-to-left text.
_INVISIBLE = dict.fromkeys(
    map(ord, "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")
)
_SCHEME = re.compile(r"(?:tel|whatsapp)\s*:\s*", re.IGNORECASE)
_PLAIN = re.compile(r"\+?[0-9]+")
_OPTIONAL_ZERO = re.compile(r"\(\s*0\s*\)")
#: What can stand before it: nothing, or a country code.
_COUNTRY_CODE = re.compile(r"(?:(?:\+|00)\D*(?:\d\D*){1,3})?")
_EXPONENT = re.compile(r"\+?\d(?:[.,]\d+)?[eE][+-]?\d+")
#: After digits that are grouped, ``.00`` may be one more group, but nobody has groups of one digit.
_TRAILING_DECIMALS = re.compile(r"\+?\d{5,}[.,]0+|.*\d[.,]0")
#: What is no longer than this is nobody's number.
_TOO_SHORT = 5
_FIELD = "contact_mobile_number"
_ONE_RECIPIENT = (
    "one message has one recipient. Use WasslyBroadcastOperator, or .expand(contact_mobile_number=…) for a few"
)


class ReadNumber(NamedTuple):
    """
    A number as it is sent.

    :param number: ``+`` and 8 to 15 digits.
    :param warning: what to log before sending to it; empty for most. It holds the number shortened.
    """

    number: str
    warning: str = ""


def shorten(number: str) -> str:
    """
    Return a number as log lines may show it: ``+491701234567`` becomes ``+49…4567``.

    Of what cannot be a number, enough is shown to find it in a list.
    """
    # Whatever a list holds, it must not break a line of the log.
    shown = "".join(char if char.isprintable() else "?" for char in number.translate(_INVISIBLE).strip())
    if len(shown) > 8:
        return f"{shown[:3]}…{shown[-4:]}"
    if len(shown) > _TOO_SHORT:
        return f"{shown[:2]}…{shown[-2:]}"
    return shown or "…"


def normalize(number: Any, default_region: str | None = None) -> str:
    """
    Return the number that :func:`read` finds, without its warning.

    :raises WasslyInvalidMessage: when it is not one phone number; the text says why.
    """
    return read(number, default_region).number


def read(number: Any, default_region: str | None = None) -> ReadNumber:
    """
    Read a phone number as people write it.

    :param number: with a leading ``+`` or ``00`` and country code, or in the national form of ``default_region``.
        Removed are spaces, dashes, dots, slashes and brackets between the digits, ``tel:`` or ``whatsapp:`` in front,
        and a trunk prefix after the country code (``+44 07700 900123``).
    :param default_region: two-letter country code (ISO 3166-1) in which a national form is read.
    :raises WasslyInvalidMessage: when it is not one phone number; the text says why.
    """
    text = _cleaned(_one_text(number))
    if _OPTIONAL_ZERO.search(text):
        return _with_or_without_zero(text, default_region)
    return _read(text, default_region)


def check_region(region: str) -> str:
    """
    Return ``region`` in capitals.

    :raises WasslyConfigError: when no such country is known.
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
    if number is None or number == "":
        raise _invalid("empty; write the recipient's number with + and country code")
    if isinstance(number, (list, tuple, set, frozenset, dict)):
        raise _invalid(f"a list; {_ONE_RECIPIENT}")
    if isinstance(number, float):
        raise _invalid("a floating-point number, as spreadsheets make of phone numbers; keep the column as text")
    if not isinstance(number, str):
        raise _invalid(
            f"of type {type(number).__name__}, which cannot hold a leading + or 0; write it as text with country code"
        )
    return number


def _cleaned(text: str) -> str:
    text = text.translate(_INVISIBLE).strip().replace("\uff0b", "+")
    if not text.isascii():
        # Digits of any script become 0 to 9.
        text = "".join(char if (digit := unicodedata.decimal(char, None)) is None else str(digit) for char in text)
    scheme = _SCHEME.match(text)
    return text[scheme.end() :] if scheme else text


def _with_or_without_zero(text: str, default_region: str | None) -> ReadNumber:
    """Read ``+49 (0)170 …``. After a country code the 0 is dialled in Italy; in most countries it is not."""
    before, after = _OPTIONAL_ZERO.split(text, maxsplit=1)
    readings: list[ReadNumber] = []
    for zero in ("0", ""):
        try:
            reading = _read(before + zero + after, default_region)
        except WasslyInvalidMessage as error:
            refusal = error
        else:
            readings.append(reading if zero else _repaired(reading.number))
    if not readings:
        raise refusal
    if _COUNTRY_CODE.fullmatch(before):
        if len(readings) == 2 and readings[0].number == readings[1].number:
            return readings[0]
        valid = [reading for reading in readings if _is_valid(reading.number)]
        if len(valid) == 1:
            return valid[0]
    raise _invalid("holds (0), which is dialled in some countries and not in others; leave it out or write it plainly")


def _is_valid(number: str) -> bool:
    import phonenumbers

    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return False


def _read(text: str, default_region: str | None) -> ReadNumber:
    plain = _plain(text)
    if plain.startswith("+"):
        return _international(plain[1:])
    if plain.startswith("00"):
        return _international(plain[2:])
    return ReadNumber(_national(plain, default_region))


def _plain(text: str) -> str:
    """Strip the separators; refuse whatever shows that this is not one phone number."""
    if _PLAIN.fullmatch(text):
        return text
    if "@" in text:
        kind = "a WhatsApp group id" if text.endswith("@g.us") else "a WhatsApp id or an e-mail address"
        raise _invalid(f"{kind}; only phone numbers can be sent to")
    if _EXPONENT.fullmatch(text):
        raise _invalid("a number in exponent form (2.01E+11), as spreadsheets write it; its digits are lost")
    if _TRAILING_DECIMALS.fullmatch(text):
        raise _invalid("ends in .0, as spreadsheets write numbers; keep the column as text")
    if ";" in text and text.partition(";")[2].lower().startswith(("ext=", "phone-context=", "isub=")):
        raise _invalid("holds an extension; only a number can be sent to")
    if re.search(r"[,;|\n\r]", text) or text.count("+") > 1:
        raise _invalid(f"more than one number; {_ONE_RECIPIENT}")
    if any(char.isalpha() for char in text):
        raise _invalid("holds letters; an extension or a name cannot be sent to, only a number")
    plain = ""
    for char in text:
        if char in _SEPARATORS:
            continue
        if not (char in "0123456789" or (char == "+" and not plain)):
            raise _invalid(f"holds {char!r}, which is no part of a phone number")
        plain += char
    if plain in {"", "+"}:
        raise _invalid("holds no digits")
    return plain


def _national(digits: str, default_region: str | None) -> str:
    if default_region is None:
        raise _invalid(
            "has no country code; begin it with + and country code, or set default_region in the connection's extra"
        )
    import phonenumbers

    region = check_region(default_region)
    try:
        parsed = phonenumbers.parse(digits, region)
    except phonenumbers.NumberParseException as error:
        raise _invalid(f"cannot be read as a number of {region}: {error}") from None
    e164 = str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))
    # What is shorter is a valid number to a landline of the same town, and nobody's on WhatsApp.
    if not phonenumbers.is_valid_number(parsed) or not 8 <= len(e164) - 1 <= 15:
        raise _invalid(
            f"is not a number of {region}; begin it with + and country code if it belongs to another country"
        )
    # 4917012345678 is a valid national number in Germany and, more likely, an international one without its +.
    code = str(phonenumbers.country_code_for_region(region))
    if digits.startswith(code) and e164 != f"+{digits}":
        international = phonenumbers.parse(f"+{digits}")
        if phonenumbers.is_valid_number(international):
            raise _invalid(
                f"can be read with and without the country code {code}; begin it with + or with the national prefix"
            )
    return e164


def _international(digits: str) -> ReadNumber:
    """Read a number that begins with its country code."""
    written = f"+{digits}"
    found = _without_trunk_prefix(written)
    count = len(found.number) - 1
    if not 8 <= count <= 15 or digits.startswith("0"):
        where = "after the +" if found.number == written else "without its trunk prefix"
        raise _invalid(
            f"{count} digits {where} where an international number has 8 to 15 and begins with a country code"
        )
    return found


def _without_trunk_prefix(number: str) -> ReadNumber:
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        parsed = None
    if parsed is None or not phonenumbers.is_possible_number(parsed):
        # Only a warning: WhatsApp knows numbers that the library calls impossible, Mexico's +52 1 … among them.
        return ReadNumber(
            number, f"Sending to {shorten(number)}, which does not look like a phone number of any country"
        )
    # The library takes a trunk prefix out where what is left can be a number.
    repaired = str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))
    if repaired == number:
        return ReadNumber(number)
    # Some numbers of Belarus begin with the digits of its trunk prefix. So do Mexico's in older metadata.
    national = number[1 + len(str(parsed.country_code)) :]
    as_written = phonenumbers.PhoneNumber(
        country_code=parsed.country_code, national_number=int(national), italian_leading_zero=national.startswith("0")
    )
    if phonenumbers.is_valid_number(as_written):
        return ReadNumber(number)
    # Again, because some write it twice.
    return _repaired(_without_trunk_prefix(repaired).number)


def _repaired(number: str) -> ReadNumber:
    return ReadNumber(
        number,
        f"Sending to {shorten(number)}: the number was written with a trunk prefix, such as (0), which is not dialled "
        "from abroad",
    )
