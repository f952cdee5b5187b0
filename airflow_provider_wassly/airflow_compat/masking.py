"""Airflow's secrets masker."""

from __future__ import annotations

from airflow_provider_wassly.airflow_compat import versions

_MASKERS = (
    "airflow.sdk._shared.secrets_masker",
    "airflow.sdk.execution_time.secrets_masker",  # 3.0
    "airflow.utils.log.secrets_masker",  # 2.11
)


def mask_secret(secret: str) -> None:
    """Have Airflow replace ``secret`` with ``***`` in logs and rendered fields from now on."""
    versions.first_of("mask_secret", "airflow.sdk.log", "airflow.utils.log.secrets_masker")(secret)


def mask_secret_here(secret: str) -> None:
    """Mask ``secret`` in this process only, without calling Airflow, so any thread may use this."""
    versions.first_of("_secrets_masker", *_MASKERS)().add_mask(secret)


def redact(text: str) -> str:
    """Return ``text`` with every secret that Airflow knows in this process replaced by ``***``."""
    return str(versions.first_of("redact", *_MASKERS)(text))
