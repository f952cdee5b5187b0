"""
Starts Airflow once and runs commands in forks, because starting it takes longer than most commands.

It reads requests from standard input, one line of JSON each, and answers each with a line of JSON that holds the
output. It ends when its input ends, and so with the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import json
import multiprocessing
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

#: Modules that running a DAG imports. Not every version of Airflow has all of them.
MODULES = (
    "airflow.__main__",
    "airflow.api_fastapi.execution_api.app",
    "airflow.api_fastapi.execution_api.routes",
    "airflow.cli.commands.dag_command",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
)
#: Seconds that one request may take.
PATIENCE = 300
#: With this variable, ``dags test`` creates a run without a logical date. A user can trigger one, but not by command.
UNDATED = "WASSLY_TESTS_UNDATED"


def run(commands: Iterable[str], environment: Mapping[str, str], output: Path) -> None:
    """Run commands such as ``dags list`` with this environment, and append their output to a file."""
    printed = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # from the previous environment
    import airflow
    from airflow import settings
    from airflow.__main__ import main

    if airflow.__version__.startswith("3.0."):
        # Its "dags test" does not set up the log of a real task, and so shows every secret.
        from airflow.sdk.log import configure_logging

        configure_logging(enable_pretty_log=False, output=sys.stdout)
    if environment.get(UNDATED):
        from airflow.sdk import DAG

        DAG.test = functools.partialmethod(test_undated, DAG.test)  # type: ignore[method-assign, assignment]
    for command in commands:
        sys.argv = ["airflow", *shlex.split(command)]
        with contextlib.suppress(SystemExit):
            main()  # type: ignore[no-untyped-call]
    settings.dispose_orm()  # nothing else does so at the end of a fork, and the database file would be incomplete


def test_undated(dag: Any, test: Callable[..., object], logical_date: object, **options: object) -> object:
    return test(dag, logical_date=None, **options)


def start_airflow() -> None:
    """Do, once for all forks, what every Airflow process does before its first task."""
    for module in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    try:
        from airflow.sdk.execution_time.supervisor import in_process_api_server
    except ImportError:  # before Airflow 3, tasks need no API
        return
    transport = in_process_api_server().atransport
    # The client has to match the transport's library: httpx, or httpx2 from 3.4 on.
    http = importlib.import_module(type(transport).__module__.partition(".")[0])

    async def ask() -> None:
        # The first request makes it build its routes; this path does not exist.
        async with http.AsyncClient(transport=transport) as client:
            await client.get("http://airflow/no/such/path")

    asyncio.run(ask())


def fork(*arguments: object) -> None:
    process = multiprocessing.get_context("fork").Process(target=run, args=arguments)
    process.start()
    process.join(PATIENCE)
    process.kill()
    process.join()


def serve(folder: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # discard what Airflow prints when it starts
    # Airflow caches paths when it starts. So its home is a link, which points to the home of the current request.
    link, template, output = folder / "home", folder / "template", folder / "output"
    template.mkdir()
    link.symlink_to(template)
    ours = {
        "AIRFLOW_HOME": str(link),
        "AIRFLOW__CORE__DAGS_FOLDER": str(link / "dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{link}/airflow.db",
    }
    os.environ.update(ours)
    start_airflow()
    fork(["db migrate"], dict(os.environ), output)
    for line in sys.stdin:
        home, commands, environment = json.loads(line)
        if not Path(home, "airflow.db").exists():
            shutil.copytree(template, home, dirs_exist_ok=True)
        link.unlink()
        link.symlink_to(home)
        output.write_text("")
        fork(commands, environment | ours, output)
        print(json.dumps(output.read_text(errors="replace")), file=answers, flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="wassly-airflow-") as folder:
        serve(Path(folder))
