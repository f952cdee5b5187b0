"""One cluster for all of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec

import pytest

from tests.celery.cluster import CeleryCluster
from tests.celery.services import PostgreSQL, Redis, missing_programs
from tests.support.airflow_server import IS_AIRFLOW_2


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CeleryCluster]:
    """Airflow with two Celery workers."""
    if IS_AIRFLOW_2:
        pytest.skip("tried on Airflow 3 only")
    if missing := missing_programs() or _missing_packages():
        pytest.fail(f"missing: {missing}")
    with ExitStack() as running:
        redis, postgresql = Redis(), PostgreSQL()
        for service in (redis, postgresql):
            running.callback(service.stop)
            service.start()
        cluster = CeleryCluster(tmp_path_factory.mktemp("airflow"), redis, postgresql)
        running.callback(cluster.stop)
        cluster.start()
        yield cluster


def _missing_packages() -> str:
    modules = ("airflow.providers.celery", "asyncpg", "psycopg2", "redis")
    return ", ".join(name for name in modules if find_spec(name) is None)
