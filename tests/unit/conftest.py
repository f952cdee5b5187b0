from __future__ import annotations

import pytest

from tests.support.hook import hook

__all__ = ["hook"]


@pytest.fixture(autouse=True)
def no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the masker, so that secrets of other tests, even single letters, are not masked in this one."""
    # Imported here, because the process that only distributes the tests needs no Airflow.
    from airflow_provider_wassly.airflow_compat import masking, versions

    masker = versions.first_of("_secrets_masker", *masking._MASKERS)()
    monkeypatch.setattr(masker, "patterns", set())
    monkeypatch.setattr(masker, "replacer", None)
