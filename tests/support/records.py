"""What the record of a message may hold."""

from __future__ import annotations

import json
from collections.abc import Iterable

_FIELDS = {
    "version", "instance", "run", "chain", "try_number", "process", "to", "about", "announced", "receipt",
}  # fmt: skip


def check_record(text: str, private: Iterable[str]) -> None:
    """Check that a record has the fields that it is to have, and holds nothing private."""
    assert json.loads(text).keys() == _FIELDS
    for secret in private:
        assert secret not in text
