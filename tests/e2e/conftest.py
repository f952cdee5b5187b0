"""One Airflow for all plays that can share it, started with the first of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.e2e.play import SECONDS, Play
from tests.support.airflow_server import AirflowServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests without a play first, in parallel with the plays; the tests of a play wait for it to end."""

    def waits(item: pytest.Item) -> bool:
        return "play" in getattr(item, "fixturenames", ())

    items.sort(key=waits)
    for item in filter(waits, items):
        item.add_marker(pytest.mark.timeout(2 * SECONDS))


@pytest.fixture(scope="session", autouse=True)
def plays(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[type[Play], Future[Play]]]:
    """The plays of all modules in this test run, started."""
    modules = (item.getparent(pytest.Module) for item in request.session.items)
    kinds = dict.fromkeys(module.obj.PLAY for module in modules if module and hasattr(module.obj, "PLAY"))
    # Most tasks only wait for something.
    server = AirflowServer(tmp_path_factory.mktemp("airflow"), {"AIRFLOW__CORE__PARALLELISM": "12"})
    with ExitStack() as ending:
        threads = ending.enter_context(ThreadPoolExecutor(len(kinds) + 1))
        plays: list[Play] = []
        for kind in kinds:
            plays.append(kind(server))
            ending.callback(plays[-1].stop)
        ending.callback(server.stop)
        starting = threads.submit(server.start) if any(play.shares for play in plays) else None

        def perform(play: Play) -> Play:
            if play.shares and starting:
                starting.result()
            play.perform()
            return play

        yield {type(play): threads.submit(perform, play) for play in plays}


@pytest.fixture(scope="module")
def play(request: pytest.FixtureRequest, plays: dict[type[Play], Future[Play]]) -> Play:
    """The module's play, once it has ended."""
    return plays[request.module.PLAY].result()
