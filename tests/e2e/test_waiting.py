"""A broadcast that waits without a worker slot in a real Airflow, is killed, and ends."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from datetime import datetime

import pytest

from tests.e2e.play import SECONDS, TRIGGERER, Play
from tests.support.airflow_server import AirflowServer

RECIPIENTS = 60

DAG_FILE = """
import os
from datetime import datetime, time, timedelta, timezone

from airflow_provider_wassly.broadcast import hours, run
from airflow_provider_wassly.operators import broadcast
try:
    from airflow.sdk import DAG, task
except ImportError:
    from airflow.decorators import task
    from airflow.models.dag import DAG

# In this process, all waits are long, and hours have seconds.
run._SHORT = 0.0
broadcast._POKE_INTERVAL = 2.0
hours._time = time.fromisoformat


class FromSoonOn(broadcast.WasslyBroadcastOperator):
    def begin(self, context):
        (HOME / "process").write_text(str(os.getpid()))
        opens = HOME / "opens"
        if not opens.exists():
            opens.write_text((datetime.now(timezone.utc) + timedelta(seconds=20)).isoformat())
        begin = datetime.fromisoformat(opens.read_text())
        self.send_between = tuple((begin + timedelta(hours=late)).time().isoformat() for late in (0, 2))
        super().begin(context)


@task(pool="phones", priority_weight=1)
def note():
    (HOME / "noted").write_text(datetime.now(timezone.utc).isoformat())


with DAG("unhurried", schedule="@once", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
    FromSoonOn(
        task_id="send",
        wassly_conn_id="unhurried",
        pool="phones",
        priority_weight=9,
        recipients=[f"+4477009{row:05}" for row in range(RECIPIENTS)],
        instance_ids=["sandbox-instance", "phone"],
        message="Hello",
        report=str(HOME / "report.csv"),
        messages_per_minute=None,
        max_workers=2,
        max_failures=4,
        deferrable=True,
        retries=5,
        retry_delay=timedelta(seconds=1),
    )
    note()
""".replace("(RECIPIENTS)", f"({RECIPIENTS})")


class Unhurried(Play):
    """The hours begin later, one of two phones is off, and the process is killed."""

    def __init__(self, server: AirflowServer) -> None:
        super().__init__(server)
        self.add_dags(DAG_FILE)
        self.box = self.start_sandbox("unhurried", devices=["sandbox-instance", "phone"])
        self.box.disconnect_device("phone")
        # Slow enough to be killed while it is sending.
        self.box.latency = 0.4

    def state(self) -> str | None:
        rows = self.server.query("select state from task_instance where dag_id = 'unhurried' and task_id = 'send'")
        return rows[0][0] if rows else None

    def wait_for_deferral(self, times: int) -> None:
        """Wait until it is deferred, and the scheduler knows that the process has ended."""
        key = re.escape("TaskInstanceKey(dag_id='unhurried', task_id='send'")
        event = re.compile(f"Received executor event with state success for task instance .*{key}")
        log = self.server.home / "scheduler.log"
        self.server.wait_for(
            lambda: self.state() == "deferred" and len(event.findall(log.read_text(errors="replace"))) >= times,
            f"deferral {times}",
            seconds=SECONDS,
        )

    def perform(self) -> None:
        # Tasks in a pool that does not exist are not scheduled.
        self.server.run("pools", "set", "phones", "1", "One task at a time")
        self.wait_for_deferral(1)
        assert self.box.messages == []
        with TRIGGERER:
            # Only the first phone sends.
            self.server.wait_for(
                lambda: len(self.box.messages) == RECIPIENTS / 2, "the messages of one phone", seconds=SECONDS
            )
            self.wait_for_deferral(2)
            self.box.connect_device("phone")
            self.server.wait_for(
                lambda: len(self.box.messages) >= RECIPIENTS * 2 / 3, "the messages of the other", seconds=SECONDS
            )
            os.kill(int((self.home / "process").read_text()), signal.SIGKILL)
            self.server.wait_for(lambda: self.state() in ("success", "failed"), "the end", seconds=SECONDS)


PLAY = Unhurried


def test_it_ends_well(play: Unhurried) -> None:
    ((state, tries),) = play.server.query(
        "select state, try_number from task_instance where dag_id = 'unhurried' and task_id = 'send'"
    )
    assert (state, tries) == ("success", 2), play.server.task_logs("unhurried")


def test_nobody_got_two_messages_and_all_but_a_few_got_one(play: Unhurried) -> None:
    delivered = Counter(message.contact_mobile_number for message in play.box.messages)
    assert set(delivered.values()) == {1}
    # Two are in flight and two announced when it is killed.
    assert len(delivered) >= RECIPIENTS - 4


def test_each_row_kept_its_phone(play: Unhurried) -> None:
    devices = {message.contact_mobile_number: message.instance_id for message in play.box.messages}
    phones = ["sandbox-instance", "phone"]
    assert devices == {number: phones[int(number[-5:]) % 2] for number in devices}


def test_nothing_left_before_the_hours_began(play: Unhurried) -> None:
    opens = datetime.fromisoformat((play.home / "opens").read_text())
    assert min(message.received_at for message in play.box.messages) >= opens


def test_another_task_ran_in_its_slot_meanwhile(play: Unhurried) -> None:
    noted = datetime.fromisoformat((play.home / "noted").read_text())
    assert noted < min(message.received_at for message in play.box.messages)


@pytest.mark.parametrize("line", ["Waiting until today at ", "Waiting, because instance phone is disconnected"])
def test_its_log_says_what_it_waited_for(play: Unhurried, line: str) -> None:
    assert line in play.server.task_logs("unhurried")
