from __future__ import annotations

import json
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_wassly.client.transport.redaction import Redactor

SECRET = st.text(st.characters(max_codepoint=127, exclude_characters="*"), min_size=4)


@given(secret=SECRET, before=st.text(), after=st.text())
def test_a_secret_is_found_in_every_spelling(secret: str, before: str, after: str) -> None:
    redact = Redactor(secret)
    for spelling in (secret, json.dumps(secret)[1:-1], quote(secret, safe=""), repr(secret)[1:-1]):
        assert spelling not in redact(before + spelling + after)


def test_a_secret_that_is_part_of_another_leaves_no_rest() -> None:
    assert Redactor("abcd", "abcd-efgh")("x abcd-efgh y abcd z") == "x *** y *** z"


def test_the_slashes_of_php_are_known() -> None:
    assert "a/b+c" not in Redactor("a/b+c")(r'{"key": "a\/b+c"}').replace("\\/", "/")


def test_without_a_secret_nothing_changes() -> None:
    redact = Redactor(None, "")
    assert redact("*** text") == "*** text"
    redact.add(None)
    redact.add("text")
    assert redact("*** text") == "*** ***"


def test_the_recipient_is_shortened() -> None:
    redact = Redactor("key")
    assert redact.with_number("key: +491701234567 or 491701234567", "+491701234567") == "***: +49…4567 or 49…4567"
    assert redact.with_number("key: +491701234567", None) == "***: +491701234567"
