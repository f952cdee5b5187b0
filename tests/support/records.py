"""What a message's record may contain."""

from __future__ import annotations

import json
from collections.abc import Iterable

_FIELDS = {
    "version", "instance", "run", "chain", "try_number", "process", "to", "about", "announced", "receipt",
}  # fmt: skip


def check_record(text: str, private: Iterable[str]) -> None:
    """Check that a record has the expected fields and nothing private."""
    assert json.loads(text).keys() == _FIELDS
    for secret in private:
        assert secret not in text
