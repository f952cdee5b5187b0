"""Phone numbers as people write them, turned into the form that the API takes."""

from __future__ import annotations

import logging
import re
import unicodedata
from typing import Any

from airflow_provider_wassly.client.errors import WasslyConfigError, WasslyInvalidMessage

log = logging.getLogger(__name__)

_SEPARATORS = frozenset(" -./()\u00a0\u2007\u202f\u2009\u200a\u2010\u2011\u2012\u2013\u2014\u2212\t")
#: Marks without width that come along when a number is copied out of a chat or a right-to-left text.
_INVISIBLE = dict.fromkeys(
    map(ord, "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")
)
_EXPONENT = re.compile(r"\+?\d(?:[.,]\d+)?[eE][+-]?\d+")
#: After digits that are grouped, ``.00`` may be one more group, but nobody has groups of one digit.
_TRAILING_DECIMALS = re.compile(r"\+?\d{5,}[.,]0+|.*\d[.,]0")
_FIELD = "contact_mobile_number"
_ONE_RECIPIENT = (
    "one message has one recipient. Use WasslyBroadcastOperator, or .expand(contact_mobile_number=…) for a few"
)


def shorten(number: str) -> str:
    """Return a number as log lines may show it: ``+491701234567`` becomes ``+49…4567``."""
    return f"{number[:3]}…{number[-4:]}" if len(number) > 8 else "…"


def normalize(number: Any, default_region: str | None = None) -> str:
    """
    Return ``number`` as ``+`` and 8 to 15 digits.

    :param number: with a leading ``+`` or ``00`` and country code, or in the national form of ``default_region``.
        Spaces, dashes, dots, slashes and brackets between the digits are taken out.
    :param default_region: two-letter country code (ISO 3166-1) in which a national form is read.
    :raises WasslyInvalidMessage: when it is not one phone number; the text says why.
    """
    text = _one_text(number)
    plain = _plain(text)
    if plain.startswith("+"):
        digits = plain[1:]
    elif plain.startswith("00"):
        digits = plain[2:]
    else:
        return _national(plain, default_region)
    if not 8 <= len(digits) <= 15 or digits.startswith("0"):
        raise _invalid(
            f"{len(digits)} digits after the + where an international number has 8 to 15 and begins with a country code"
        )
    _warn_if_impossible(digits)
    return f"+{digits}"


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


def _plain(text: str) -> str:
    """Strip the separators; refuse whatever shows that this is not one phone number."""
    text = text.translate(_INVISIBLE).strip().replace("\uff0b", "+")
    # Digits of any script become 0 to 9.
    text = "".join(char if (digit := unicodedata.decimal(char, None)) is None else str(digit) for char in text)
    if "@" in text:
        kind = "a WhatsApp group id" if text.endswith("@g.us") else "a WhatsApp id or an e-mail address"
        raise _invalid(f"{kind}; only phone numbers can be sent to")
    if _EXPONENT.fullmatch(text):
        raise _invalid("a number in exponent form (2.01E+11), as spreadsheets write it; its digits are lost")
    if _TRAILING_DECIMALS.fullmatch(text):
        raise _invalid("ends in .0, as spreadsheets write numbers; keep the column as text")
    if re.search(r"[,;|\n\r]", text) or text.count("+") > 1:
        raise _invalid(f"more than one number; {_ONE_RECIPIENT}")
    if re.search(r"\(\s*0\s*\)", text):
        raise _invalid(
            "holds (0), which is dialled in some countries and not in others; leave it out or write it plainly"
        )
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


def _warn_if_impossible(digits: str) -> None:
    # Only a warning: WhatsApp knows numbers that the library calls impossible, Mexico's +52 1 … among them.
    import phonenumbers

    try:
        possible = phonenumbers.is_possible_number(phonenumbers.parse(f"+{digits}"))
    except phonenumbers.NumberParseException:
        possible = False
    if not possible:
        log.warning(
            "%s does not look like a phone number of any country; sending to it all the same", shorten(f"+{digits}")
        )
