from __future__ import annotations

import pytest

from tests.support.hook import hook

__all__ = ["hook"]


@pytest.fixture(autouse=True)
def no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have masked, a single letter even, is not masked in this one."""
    # Here, because the process that only hands out the tests needs no Airflow.
    from airflow_provider_wassly.airflow_compat import masking, versions

    masker = versions.first_of("_secrets_masker", *masking._MASKERS)()
    monkeypatch.setattr(masker, "patterns", set())
    monkeypatch.setattr(masker, "replacer", None)
