"""Airflow's paths to files in object storages."""

from __future__ import annotations

from typing import Any

from airflow_provider_wassly.airflow_compat import versions


def object_storage_path(uri: str, conn_id: str | None) -> Any:
    """Return Airflow's path object for ``uri``."""
    path = versions.first_of("ObjectStoragePath", "airflow.sdk", "airflow.io.path")
    # Before 3.2, even conn_id=None would override a connection that the URI itself names (s3://conn@bucket/…).
    return path(uri) if conn_id is None else path(uri, conn_id=conn_id)
