"""Remove secrets from texts that will be shown."""

from __future__ import annotations

import json
from urllib.parse import quote

from airflow_provider_wassly.client.numbers import shorten


class Redactor:
    """
    Replaces every known secret with ``***``, in all spellings in which a server may echo it.

    :param secrets: the secrets known so far; ``None`` and empty ones are ignored.
    """

    def __init__(self, *secrets: str | None) -> None:
        self._spellings: set[str] = set()
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str | None) -> None:
        """Replace this secret from now on."""
        if secret:
            escaped = json.dumps(secret)[1:-1]
            quoted = quote(secret, safe="", errors="replace")
            self._spellings |= {secret, escaped, escaped.replace("/", "\\/"), quoted, repr(secret)[1:-1]}

    def __call__(self, text: str) -> str:
        """Return ``text`` without secrets."""
        # The longest first, so that a secret within another leaves nothing of it.
        for spelling in sorted(self._spellings, key=len, reverse=True):
            text = text.replace(spelling, "***")
        return text

    def with_number(self, text: str, number: str | None) -> str:
        """Return ``text`` without secrets and with the recipient's number shortened, if there is one."""
        text = self(text)
        return text.replace(number[1:], shorten(number)[1:]) if number else text
