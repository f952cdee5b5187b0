from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have masked, a single letter even, is not masked in this one."""
    # Here, because the process that only hands out the tests needs no Airflow.
    from airflow_provider_wassly import _compat

    masker = _compat._first_of("_secrets_masker", *_compat._MASKERS)()
    monkeypatch.setattr(masker, "patterns", set())
    monkeypatch.setattr(masker, "replacer", None)
