"""The package is replaced by a newer one while tasks are between two tries."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import airflow_provider_wassly
from airflow_provider_wassly.sandbox import Sandbox
from tests.support.airflow_server import AirflowServer

ROOT = Path(__file__).parents[2]
OLDER = "0.0.9"
NEWER = airflow_provider_wassly.__version__
#: Long enough to install the newer one.
RETRY_DELAY = 40

DAG_FILE = """
import os, time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator
from airflow_provider_wassly.operators.send_message import BUILT_AS, WasslySendMessageOperator
try:
    from airflow.sdk import DAG
except ImportError:
    from airflow.models.dag import DAG

HERE = Path(__file__).parent.parent


def note_version_and_process(context):
    ti = context["ti"]
    (HERE / f"{ti.task_id}.{ti.try_number}.version").write_text(BUILT_AS)
    (HERE / f"{ti.task_id}.pid").write_text(str(os.getpid()))


def hang(context, result):
    (HERE / f"{context['ti'].task_id}.done").touch()
    time.sleep(300)


COMMON = dict(
    retries=2, retry_delay=timedelta(seconds=RETRY_DELAY), pre_execute=note_version_and_process, depends_on_past=False
)
with DAG("upgraded", schedule="@once", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
    WasslySendMessageOperator(
        task_id="unanswered", contact_mobile_number="+447700900001", message="Hello", **COMMON
    )
    WasslySendMessageOperator(
        task_id="answered", contact_mobile_number="+447700900002", message="Hello",
        post_execute=hang if BUILT_AS == "OLDER" else None, **COMMON
    )
    WasslyBroadcastOperator(
        task_id="broadcast",
        recipients=[{"contact_mobile_number": f"+4477009001{row:02}"} for row in range(100)],
        message="Hello",
        messages_per_minute=300,
        max_failures=5,  # who was being sent to at the kill is unknown
        **COMMON,
    )
""".replace("=RETRY_DELAY", f"={RETRY_DELAY}").replace("OLDER", OLDER)


class UpgradedServer(AirflowServer):
    """An Airflow whose Python has a package of its own in place of the one under test."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.venv = home / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(self.venv)], check=True)
        # All else is that of the environment of the tests.
        site = Path(sysconfig.get_path("purelib", vars={"base": str(self.venv)}))
        (site / "others.pth").write_text(sysconfig.get_path("purelib"))
        self._python = str(self.venv / "bin" / "python")
        command = self.venv / "bin" / "airflow"
        command.write_text(f"#!{self._python}\nfrom airflow.__main__ import main\nmain()\n")
        command.chmod(0o755)
        super().__init__(home, {"PATH": f"{self.venv / 'bin'}:{os.environ['PATH']}", **environment})

    def install(self, wheel: Path) -> None:
        """Replace the package."""
        command = [self._python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall"]
        subprocess.run([*command, str(wheel)], check=True)

    def _command(self, *arguments: str) -> list[str]:  # type: ignore[override]
        # With -m, Python would look for the package in the current folder first.
        return [str(self.venv / "bin" / "airflow"), *arguments]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The package as it is, and the same with an older version."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    built = {}
    for version in (OLDER, NEWER):
        folder = tmp_path_factory.mktemp(version)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, folder)
        shutil.copytree(ROOT / "airflow_provider_wassly", folder / "airflow_provider_wassly")
        package = folder / "airflow_provider_wassly"
        (package / "__init__.py").write_text(f'__version__ = "{version}"\n')
        # The scheduler has imported the package itself, for what it says to Airflow, and its tasks are forks of it.
        with (package / "operators" / "send_message.py").open("a") as module:
            module.write(f'\nBUILT_AS = "{version}"\n')
        command = [
            str(venv / "bin" / "python"),
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            f"--wheel-dir={folder}",
            str(folder),
        ]
        subprocess.run(command, check=True)
        (built[version],) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox() as box:
        box.fail_next("hang_after_accept", to="+447700900001")
        yield box


@pytest.fixture(scope="module")
def server(wheels: dict[str, Path], box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowServer]:
    """An Airflow that has run all tasks to their end: their first tries with the older version."""
    home = tmp_path_factory.mktemp("airflow")
    server = UpgradedServer(home, {"AIRFLOW_CONN_WASSLY_DEFAULT": box.connection})
    server.install(wheels[OLDER])
    (server.dags / "upgraded.py").write_text(DAG_FILE)

    def sent_to(prefix: str) -> int:
        return sum(message.contact_mobile_number.startswith(prefix) for message in box.messages)

    has_come_far: dict[str, Callable[[], bool]] = {
        "unanswered": lambda: sent_to("+447700900001") > 0,
        "answered": lambda: (home / "answered.done").exists(),
        "broadcast": lambda: sent_to("+4477009001") >= 10,
    }
    killed: set[str] = set()

    def all_are_killed() -> bool:
        # One by one: on Airflow 2.11 they run one after the other.
        for task_id in has_come_far.keys() - killed:
            if has_come_far[task_id]():
                os.kill(int((home / f"{task_id}.pid").read_text()), signal.SIGKILL)
                killed.add(task_id)
        return len(killed) == len(has_come_far)

    try:
        server.start()
        server.wait_for(all_are_killed, "the first tries", seconds=200)
        server.install(wheels[NEWER])
        server.wait_for(lambda: states(server)["upgraded"] in ("success", "failed"), "the end", seconds=300)
        yield server
    finally:
        server.stop()


def states(server: AirflowServer) -> dict[str, str]:
    return dict(server.query("select dag_id, state from dag_run union select task_id, state from task_instance"))


def test_the_retries_ran_with_the_newer_version(server: AirflowServer) -> None:
    for task_id in ("unanswered", "answered", "broadcast"):
        found = [(server.home / f"{task_id}.{number}.version").read_text() for number in (1, 2)]
        assert found == [OLDER, NEWER], server.task_logs("upgraded")


def test_each_goes_on_from_what_the_older_version_has_noted(server: AirflowServer) -> None:
    ended = states(server)
    assert (ended["unanswered"], ended["answered"], ended["broadcast"]) == ("failed", "success", "success"), (
        server.task_logs("upgraded")
    )
    assert "UNKNOWN whether Wassly accepted it" in server.task_logs("upgraded")


def test_nobody_got_two_messages(server: AirflowServer, box: Sandbox) -> None:
    numbers = [message.contact_mobile_number for message in box.messages]
    assert len(set(numbers)) == len(numbers)
    # Of the broadcast, those that were on the way when it was killed may have got none.
    assert 100 <= len(numbers) <= 102
