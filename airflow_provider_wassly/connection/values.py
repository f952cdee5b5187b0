"""
Convert the values of a connection's extra to their types; a URI has them all as text.

Each function raises a :class:`ValueError` that completes the sentence "FIELD: …".
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping
from typing import Any

#: The form of Airflow 2.11 shows this in place of a saved secret, and takes it for "unchanged".
SECRET_UNCHANGED = "RATHER_LONG_SENSITIVE_FIELD_PLACEHOLDER"

MASKED = "this is only the mask that Airflow shows in place of a secret; enter the secret itself again"


def is_mask(value: Any) -> bool:
    """Return whether this is the ``***`` of Airflow 3 and of exports, or the mask in the form of Airflow 2.11."""
    if not isinstance(value, str):
        return False
    held = value.strip()
    return held == SECRET_UNCHANGED or set(held) == {"*"}


def text(value: Any) -> str:
    """Read a text; a JSON number counts as one."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"must be text, not {type(value).__name__}")
    return str(value).strip()


def token(value: Any) -> str:
    """Read a token, without a ``Bearer`` that was copied along."""
    # Imported here because it imports requests, which the form does not need.
    from airflow_provider_wassly.client.transport.auth import bare_token

    return bare_token(text(value))


def boolean(value: Any) -> bool:
    """Read true or false, in the usual spellings."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in {"true", "1", "yes", "y", "on"}:
        return True
    if word in {"false", "0", "no", "n", "off"}:
        return False
    raise ValueError(f"must be true or false, not {value!r}")


def boolean_or_path(value: Any) -> bool | str:
    """Read true, false or a path."""
    try:
        return boolean(value)
    except ValueError:
        return text(value)


def seconds_above_0(value: Any) -> float:
    """Read a number of seconds."""
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError(f"must be a number of seconds above 0, not {value!r}")
    return seconds


def positive_int(value: Any) -> int:
    """Read a whole number above 0."""
    try:
        number = 0 if isinstance(value, bool) else int(str(value).replace("_", ""))
    except ValueError:
        number = 0
    if number <= 0:
        raise ValueError(f"must be a whole number above 0, not {value!r}")
    return number


def texts(value: Any) -> list[str]:
    """Read a list of texts: JSON, or separated by commas or line breaks."""
    if isinstance(value, str):
        value = _parsed(value) if value.lstrip().startswith("[") else value.replace("\n", ",").split(",")
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ValueError('must be a list of texts, as JSON (["…", "…"]) or separated by commas')
    return [entry.strip() for entry in value if entry.strip()]


def proxies(value: Any) -> Mapping[str, str]:
    """Read a JSON object of proxies by scheme."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = _parsed(value)
    if not isinstance(value, dict) or not all(isinstance(url, str) for url in value.values()):
        raise ValueError('must be a JSON object such as {"https": "http://proxy:3128"}')
    if any(is_mask(url) for url in value.values()):
        raise ValueError(MASKED)
    return value


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        # The form of Airflow 2.11 turns a JSON list into Python syntax.
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError("not valid JSON") from None
