"""Taking secrets out of what may be shown."""

from __future__ import annotations

import json
from urllib.parse import quote

from airflow_provider_wassly.client.numbers import shorten


class Redactor:
    """Replaces every known secret, in the spellings in which a server may echo it."""

    def __init__(self, *secrets: str | None) -> None:
        self._spellings: set[str] = set()
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str | None) -> None:
        """Remember a secret from now on."""
        if secret:
            escaped = json.dumps(secret)[1:-1]
            quoted = quote(secret, safe="", errors="replace")
            self._spellings |= {secret, escaped, escaped.replace("/", "\\/"), quoted, repr(secret)[1:-1]}

    def __call__(self, text: str) -> str:
        """Return ``text`` without secrets."""
        # The longest first, so that one that is part of another leaves no rest of it.
        for spelling in sorted(self._spellings, key=len, reverse=True):
            text = text.replace(spelling, "***")
        return text

    def with_number(self, text: str, number: str | None) -> str:
        """Return ``text`` without secrets and with the recipient's number shortened."""
        text = self(text)
        return text.replace(number[1:], shorten(number)[1:]) if number else text
