"""An upgrade of the package while tasks are between two tries."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sysconfig
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest

import airflow_provider_wassly
from airflow_provider_wassly.sandbox import Sandbox
from tests.e2e.play import SECONDS, Play
from tests.support.airflow_server import AirflowServer

ROOT = Path(__file__).parents[2]
OLDER = "0.0.9"
NEWER = airflow_provider_wassly.__version__
TASKS = ("unanswered", "answered", "broadcast")

DAG_FILE = """
import os, time
from datetime import datetime, timedelta, timezone

from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator
from airflow_provider_wassly.operators.send_message import BUILT_AS, WasslySendMessageOperator
try:
    from airflow.sdk import DAG
except ImportError:
    from airflow.models.dag import DAG


def note_version_and_process(context):
    ti = context["ti"]
    (HOME / f"{ti.task_id}.{ti.try_number}.version").write_text(BUILT_AS)
    (HOME / f"{ti.task_id}.pid").write_text(str(os.getpid()))


def hang(context, result):
    (HOME / f"{context['ti'].task_id}.done").touch()
    time.sleep(300)


COMMON = dict(
    retries=2, retry_delay=timedelta(days=1), pre_execute=note_version_and_process, depends_on_past=False
)
with DAG(
    "upgraded", schedule="@once", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), description=BUILT_AS
):
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
        messages_per_minute=600,
        max_failures=5,  # who was being sent to at the kill is unknown
        **COMMON,
    )
""".replace("OLDER", OLDER)


class UpgradedServer(AirflowServer):
    """An Airflow whose Python has a separate copy of the package."""

    #: Only the components that tasks need.
    components = {name: arguments for name, arguments in AirflowServer.components.items() if name != "triggerer"}

    def __init__(self, home: Path) -> None:
        self.venv = home / "venv"
        self._site = Path(sysconfig.get_path("purelib", vars={"base": str(self.venv)}))
        seconds = "5"
        super().__init__(
            home,
            {
                "PATH": f"{self.venv / 'bin'}:{os.environ['PATH']}",
                "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": seconds,
                "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": seconds,
            },
        )

    def start(self) -> None:
        """Start Airflow with the older version."""
        venv.create(self.venv, symlinks=True)
        # Everything else comes from the tests' environment.
        (self._site / "others.pth").write_text(sysconfig.get_path("purelib"))
        command = self.venv / "bin" / "airflow"
        command.write_text(f"#!{self.venv / 'bin' / 'python'}\nfrom airflow.__main__ import main\nmain()\n")
        command.chmod(0o755)
        self.install(OLDER)
        super().start()

    def install(self, version: str) -> None:
        """Replace the package, as pip does, with this checkout under a newer version number."""
        for folder in self._site.glob("airflow_provider_wassly*"):
            shutil.rmtree(folder)
        package = self._site / "airflow_provider_wassly"
        shutil.copytree(ROOT / package.name, package, ignore=shutil.ignore_patterns("__pycache__"))
        (package / "__init__.py").write_text(f'__version__ = "{version}"\n')
        # The scheduler has imported the package for its provider info, and its tasks are forks of the scheduler.
        with (package / "operators" / "send_message.py").open("a") as module:
            module.write(f'\nBUILT_AS = "{version}"\n')
        info = self._site / f"{package.name}-{version}.dist-info"
        info.mkdir()
        installed = distribution("airflow-provider-wassly")
        for name in ("METADATA", "entry_points.txt"):
            text = installed.read_text(name) or ""
            (info / name).write_text(re.sub("^Version: .*", f"Version: {version}", text, flags=re.MULTILINE))

    def _command(self, *arguments: str) -> list[str]:  # type: ignore[override]
        # With -m, Python would look for the package in the current folder first.
        return [str(self.venv / "bin" / "airflow"), *arguments]


class Upgrade(Play):
    """Run all first tries with the older version, and the second tries with the newer one."""

    shares = False

    def __init__(self, server: AirflowServer) -> None:
        home = server.home / "upgrade"
        home.mkdir()
        self.upgraded = UpgradedServer(home)
        super().__init__(self.upgraded)
        self.add_dags(DAG_FILE)
        self.box = self.start_sandbox("wassly_default")
        self.box.fail_next("hang_after_accept", to="+447700900001")
        self.killed: set[str] = set()

    def perform(self) -> None:
        self.server.start()
        self.server.wait_for(self.all_are_killed, "the first tries", seconds=SECONDS)
        self.upgraded.install(NEWER)
        # From here on, Airflow knows the DAG as parsed with the newer version.
        self.server.wait_for(lambda: self.description() == NEWER, "the newer version", seconds=SECONDS)
        self.server.wait_for(self.all_are_to_be_retried, "the end of the first tries", seconds=SECONDS)
        self.server.retry_now("upgraded")
        self.server.wait_for(
            lambda: states(self.server)["upgraded"] in ("success", "failed"), "the end", seconds=SECONDS
        )
        self.server.stop()

    def all_are_killed(self) -> bool:
        # One by one: on Airflow 2.11 they run one after the other.
        has_come_far = {
            "unanswered": self.sent_to("+447700900001") > 0,
            "answered": (self.home / "answered.done").exists(),
            "broadcast": self.sent_to("+4477009001") >= 10,
        }
        for task_id in TASKS:
            if has_come_far[task_id] and task_id not in self.killed:
                os.kill(int((self.home / f"{task_id}.pid").read_text()), signal.SIGKILL)
                self.killed.add(task_id)
        return len(self.killed) == len(TASKS)

    def sent_to(self, prefix: str) -> int:
        return sum(message.contact_mobile_number.startswith(prefix) for message in self.box.messages)

    def description(self) -> str:
        ((description,),) = self.server.query("select description from dag where dag_id = 'upgraded'")
        return str(description)

    def all_are_to_be_retried(self) -> bool:
        return all(states(self.server)[task_id] == "up_for_retry" for task_id in TASKS)

    def stop(self) -> None:
        self.server.stop()
        super().stop()


PLAY = Upgrade


@pytest.fixture(scope="module")
def server(play: Upgrade) -> AirflowServer:
    return play.server


@pytest.fixture(scope="module")
def box(play: Upgrade) -> Sandbox:
    return play.box


def states(server: AirflowServer) -> dict[str, str]:
    return dict(server.query("select dag_id, state from dag_run union select task_id, state from task_instance"))


def test_the_retries_ran_with_the_newer_version(play: Upgrade) -> None:
    for task_id in TASKS:
        found = [(play.home / f"{task_id}.{number}.version").read_text() for number in (1, 2)]
        assert found == [OLDER, NEWER], play.server.task_logs("upgraded")


def test_each_goes_on_from_what_the_older_version_has_noted(server: AirflowServer) -> None:
    ended = states(server)
    assert (ended["unanswered"], ended["answered"], ended["broadcast"]) == ("failed", "success", "success"), (
        server.task_logs("upgraded")
    )
    assert "UNKNOWN whether Wassly accepted it" in server.task_logs("upgraded")


def test_nobody_got_two_messages(box: Sandbox) -> None:
    numbers = [message.contact_mobile_number for message in box.messages]
    assert len(set(numbers)) == len(numbers)
    # Recipients whose messages were on the way when the broadcast was killed may have got none.
    assert 100 <= len(numbers) <= 102
