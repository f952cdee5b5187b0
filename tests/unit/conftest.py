from __future__ import annotations

import pytest

from airflow_provider_wassly import _compat


@pytest.fixture(autouse=True)
def no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have masked, a single letter even, is not masked in this one."""
    masker = _compat._first_of("_secrets_masker", *_compat._MASKERS)()
    monkeypatch.setattr(masker, "patterns", set())
    monkeypatch.setattr(masker, "replacer", None)
