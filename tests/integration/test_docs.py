"""What README and the pages of the documentation show works, and what they link to and quote is there."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
import urllib.request
from datetime import datetime, timedelta, timezone
from importlib.metadata import metadata
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_wassly.broadcast import estimate
from airflow_provider_wassly.broadcast.hours import Hours
from airflow_provider_wassly.broadcast.progress import Progress
from airflow_provider_wassly.broadcast.tally import Tally
from airflow_provider_wassly.connection.settings import ConnectionSettings
from airflow_provider_wassly.sandbox import Sandbox
from tests import matrix
from tests.support.airflow_cli import VERSION, AirflowCli
from tests.support.clock import VirtualClock
from tests.support.kept import HAS_TASK_STATE_STORE
from tests.support.shell import run_in_shell

ROOT = Path(__file__).parents[2]

#: What is written for users, by its path from the root: the README first.
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}


def blocks(language: str, *pages: str) -> list[str]:
    """Return the blocks of some pages, by default of all, without those that are the same."""
    found = (re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL) for page in pages or PAGES)
    return list(dict.fromkeys(block for of_page in found for block in of_page))


HEAD = """
from datetime import datetime, timezone
from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator
from airflow.sdk import DAG, task

OPTIONS = dict(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc))
"""


def for_this_airflow(source: str) -> str:
    """Replace Airflow 3's imports on Airflow 2."""
    try:
        import airflow.sdk  # noqa: F401
    except ImportError:
        source = source.replace(
            "from airflow.sdk import DAG, task", "from airflow import DAG\nfrom airflow.decorators import task"
        )
        source = source.replace("from airflow.sdk import DAG", "from airflow import DAG")
        source = source.replace("from airflow.sdk import task", "from airflow.decorators import task")
        source = source.replace("airflow.providers.standard.operators", "airflow.operators")
    return source


@pytest.mark.parametrize(
    "is_dated",
    [
        True,
        pytest.param(
            False,
            marks=pytest.mark.skipif(VERSION < (3, 0), reason="before Airflow 3 every run has a logical date"),
        ),
    ],
)
def test_the_dag_snippets_run(box: Sandbox, tmp_path: Path, is_dated: bool) -> None:
    home, data = tmp_path / "airflow", tmp_path / "data"
    home.mkdir()
    data.mkdir()
    command_line = AirflowCli(home, {"AIRFLOW_CONN_WASSLY_DEFAULT": box.connection})
    today = datetime.now(timezone.utc).date()
    # Just before midnight, the run can start on the next day.
    days = {"2026-11-24"} if is_dated else {str(today), str(today + timedelta(days=1))}
    for day in days:
        (data / f"{day}.pdf").write_bytes(b"%PDF")
    (data / "invoice.pdf").write_bytes(b"%PDF")
    (data / "today.pdf").write_bytes(b"%PDF")
    (the_list,) = (block for block in blocks("text") if block.startswith("contact_mobile_number"))
    (data / "invoices.csv").write_text(the_list)
    (opt_outs,) = (block for block in blocks("text") if block.startswith("+44"))
    (data / "opt-outs.txt").write_text(opt_outs)
    (data / "R-1001.pdf").write_bytes(b"%PDF")
    (data / "R-1002.pdf").write_bytes(b"%PDF")
    dag_ids = []
    for number, snippet in enumerate(blocks("python")):
        if "WasslyClient(" in snippet or "Sandbox()" in snippet:
            continue
        if "wassly_sandbox" in snippet or snippet.startswith("# dags/"):
            continue  # in test_pytest_plugin.py
        if ("RetryRule" in snippet and not HAS_TASK_STATE_STORE) or ("RetryAction" in snippet and VERSION < (3, 4)):
            continue  # Airflow has retry_policy since 3.3 and RetryAction.RESCHEDULE since 3.4, as the text says
        if "DeadlineAlert" in snippet or "send_between" in snippet:
            continue  # below
        # The folders in the snippets do not exist on this machine.
        snippet = re.sub("/data/(reports|invoices|campaigns)/", f"{data}/", snippet)
        snippet = snippet.replace("s3://invoices/2026-11", f"file://{data}")
        snippet = snippet.replace('    attachment_conn_id="aws_default",\n', "")
        if "with DAG(" in snippet:
            dag_ids += re.findall(r'with DAG\(\s*"(\w+)"', snippet)
            source = HEAD + snippet
        else:
            dag_ids.append(f"snippet_{number}")
            params = "{'recipient': '+447700900123'}"
            opening = f"with DAG('snippet_{number}', params={params}, **OPTIONS):\n"
            source = HEAD + opening + textwrap.indent(snippet, "    ")
        (command_line.dags / f"snippet_{number}.py").write_text(for_this_airflow(source))
    assert len(dag_ids) >= 6
    assert len(dag_ids) == len(set(dag_ids))
    output = command_line.test_dag(*dag_ids, is_dated=is_dated)
    for dag_id in dag_ids:
        states = command_line.states(dag_id)
        assert states, (dag_id, output)
        assert set(states.values()) <= {"success", "skipped"}, (dag_id, output)
    assert "Hello from *hello*" in [message.message for message in box.messages]
    assert not [message for message in box.messages if "None" in (message.message or "")]
    documents = [message.document.name for message in box.messages if message.document]
    (report,) = {f"Report {day}.pdf" for day in days} & set(documents)
    assert sorted(documents) == ["R-1001.pdf", "R-1002.pdf", report, "invoice.pdf", "today.pdf"]
    assert len((data / "report.csv").read_text().splitlines()) == 3
    # One of the two recipients in the list has opted out.
    campaigns = [message for message in box.messages if "STOP" in (message.message or "")]
    assert [(message.contact_mobile_number, (message.message or "").split(".")[0]) for message in campaigns] == [
        ("+447700900101", "Hello Amira, we are open on Sundays now"),
        ("+447700900101", "Hello Amira, will you come on Sunday? Reply STOP to opt out"),
        ("+447700900101", "See you on Sunday! Reply STOP to opt out"),
    ]


HOURS, DAYS = ("09:00", "20:00"), ("mon", "tue", "wed", "thu", "fri", "sat")


def test_the_campaign_runs(tmp_path: Path) -> None:
    home, data = tmp_path / "airflow", tmp_path / "data"
    home.mkdir()
    data.mkdir()
    (the_list,) = (block for block in blocks("text") if block.startswith("contact_mobile_number"))
    (data / "spring.csv").write_text(the_list + "+447700900103;Chloé;R-1003\n")
    (data / "opt-outs.txt").write_text("+447700900103\n")
    (snippet,) = (snippet for snippet in blocks("python") if "send_between" in snippet)
    names: dict[str, Any] = {}
    exec(for_this_airflow(HEAD + snippet.replace("\n):\n", "\n) as dag:\n")), names)
    task = names["dag"].get_task("send")
    assert (task.send_between, task.send_on) == (HOURS, set(DAYS))
    # At any time, so that the test need not wait for the morning.
    snippet = re.sub(r"        send_(between|on)=.*\n", "", snippet).replace("/data/campaigns/", f"{data}/")
    with Sandbox(devices=task.instance_ids) as sandbox:
        command_line = AirflowCli(home, {"AIRFLOW_CONN_WASSLY_DEFAULT": sandbox.connection})
        (command_line.dags / "campaign.py").write_text(for_this_airflow(HEAD + snippet))
        output = command_line.test_dag("spring_campaign")
        assert command_line.states("spring_campaign") == {"send": "success"}, output
        messages = {(message.contact_mobile_number, message.instance_id) for message in sandbox.messages}
    assert messages == {("+447700900101", "phone-1"), ("+447700900102", "phone-2")}
    assert len((data / "spring-report.csv").read_text().splitlines()) == 4


class Seen(dict[str, Any]):
    """Keeps the progress that a broadcast pushes, and the names of its metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[str] = []

    def push(self, progress: dict[str, Any]) -> None:
        self.update(progress)

    def measure(self, name: str, value: float) -> None:
        self.metrics.append(name)


def test_the_page_of_campaigns_names_what_can_be_watched() -> None:
    page, seen = PAGES["docs/campaign.md"], Seen()
    tally = Tally(1, VirtualClock())
    Progress(tally, Hours(None, None), lambda now: now, seen).update()
    (table,) = re.findall(r"XCom `progress` has these keys:\n\n(.*?)\n\n", page, re.DOTALL)
    named = [key for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for key in re.findall(r"`(.*?)`", cell)]
    assert list(seen) == named
    (line,) = re.findall(r"^\| metrics \| (.*)$", page, re.MULTILINE)
    assert [name.rpartition(".")[2] for name in re.findall(r"`(.*?)`", line) if "." in name] == seen.metrics


def test_the_campaign_takes_as_long_as_it_says(caplog: pytest.LogCaptureFixture) -> None:
    page = PAGES["docs/campaign.md"]
    zone = ZoneInfo("Europe/Berlin")
    begin = datetime(2026, 11, 30, 9, tzinfo=zone)
    assert f"from {begin:%A %Y-%m-%d at %H:%M}" in page
    recipients, phones, pace = 40_000, 2, 10.0
    done = begin
    for between, on, most in ((None, None, None), (HOURS, None, None), (HOURS, None, 2000), (HOURS, DAYS, 2000)):
        hours = Hours(between, on, zone)
        done = estimate.done_at(begin, recipients // phones, pace, hours, most) or begin
        limit = "none" if most is None else most
        assert f"| {hours.in_words or 'at any time'} | {limit} | {done.astimezone(zone):%A %Y-%m-%d at %H:%M} |" in page
    # The last of these is the example.
    waited = done - begin - timedelta(minutes=recipients / phones / pace)
    in_words = f"{waited.days} days and {waited.seconds // 3600} hours"
    assert f"of its ten days, the campaign above waits {in_words}." in page
    tally = Tally(recipients, VirtualClock(begin=begin))
    with caplog.at_level("INFO"):
        Progress(tally, hours, lambda now: done, None).log_start(
            before=0, messages_per_minute=pace, max_workers=1, devices=phones
        )
    assert f"```text\n{caplog.messages[-1]}\n```" in page


def test_the_first_message_arrives(tmp_path: Path) -> None:
    start, run = blocks("bash", "docs/quickstart.md")
    (dag,) = blocks("python", "docs/quickstart.md")
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "hello.py").write_text(for_this_airflow(dag))
    pip, sandbox = start.splitlines()
    assert pip.startswith("pip install ")
    command = [sys.executable, *sandbox.split()[1:], "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            (export,) = (line for _, line in zip(range(3), process.stdout, strict=False) if line.startswith("export "))
            output = run_in_shell(tmp_path, export + run)
            with urllib.request.urlopen(f"{url}/sandbox/messages") as answer:
                messages = json.load(answer)["messages"]
        finally:
            process.terminate()
    assert [message["message"] for message in messages] == ["Hello from *hello*"], output


@pytest.mark.skipif(VERSION < (3, 1), reason="Airflow has deadline alerts since 3.1, as the text says")
def test_the_deadline_snippet_makes_an_alert() -> None:
    # tests/e2e sees one arrive; "airflow dags test" cannot run a DAG with an alert.
    (snippet,) = (snippet for snippet in blocks("python") if "DeadlineAlert" in snippet)
    if VERSION == (3, 1):
        snippet = snippet.replace(", AsyncCallback, DeadlineAlert, DeadlineReference", "")
        snippet = "from airflow.sdk.definitions.deadline import *\n" + snippet
    names: dict[str, Any] = {}
    exec(HEAD + snippet.replace(":\n    WasslySend", " as dag:\n    WasslySend"), names)
    alert = names["dag"].deadline
    (alert,) = alert if isinstance(alert, list) else [alert]
    assert alert.callback.path == "airflow_provider_wassly.notifications.wassly.WasslyNotifier"


def test_the_plain_python_snippets_run(box: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    (client_snippet,) = (snippet for snippet in blocks("python") if "WasslyClient(" in snippet)
    (sandbox_snippet,) = (snippet for snippet in blocks("python") if "Sandbox()" in snippet)
    credentials = 'apikey="your key", email="you@example.com", password="your password"'
    assert credentials in client_snippet
    client_snippet = client_snippet.replace(
        credentials,
        f'apikey="sandbox-apikey", email="sandbox@example.com", password="sandbox-password", base_url={box.url!r}',
    )
    exec(client_snippet.replace("an instance", "sandbox-instance"), {})
    assert [message.message for message in box.messages] == ["Hello"]
    box.fail_next("rejected")
    exec(client_snippet.replace("an instance", "sandbox-instance"), {})
    box.fail_next("reset_after_body")
    exec(client_snippet.replace("an instance", "sandbox-instance"), {})
    exec(sandbox_snippet, {})
    # Airflow 2 logs to the standard output.
    assert [line for line in capsys.readouterr().out.splitlines() if "INFO -" not in line] == [
        "Rejected by the sandbox {}",
        "Do not send again before you have looked",
        "[]",
    ]


def test_the_sandbox_fails_on_demand(box: Sandbox) -> None:
    (snippet,) = (snippet for snippet in blocks("bash") if "curl " in snippet)
    done = subprocess.run(
        ["bash", "-ec", snippet.replace("http://127.0.0.1:8095", box.url)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [device.connected for device in box.devices] == [False]
    assert box.conversations == 0
    assert [fault.name for fault in box.faults] == ["hang_after_accept", "http_500"]


def exported(snippet: str) -> str:
    """Return the connection that a shell reads from an assignment."""
    script = f'{snippet}\nprintf %s "$AIRFLOW_CONN_WASSLY_DEFAULT"'
    return subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True).stdout


def test_the_connections_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_wassly.hooks.wassly import WasslyHook

    seen: list[ConnectionSettings] = []
    for snippet in blocks("bash"):
        if "AIRFLOW_CONN_WASSLY_DEFAULT=" in snippet:
            monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", exported(snippet))
            seen.append(WasslyHook().settings)
            WasslyHook().get_conn()
    as_json, as_uri, compose = seen
    for settings in (as_json, as_uri):
        assert settings.client["apikey"] == "your key"
        assert settings.client["email"] == "you@example.com"
        assert settings.client["password"] == "your password"
        assert settings.client["read_timeout"] == 30
    assert compose.client["base_url"] == "http://wassly-sandbox:8095"


def test_the_command_that_adds_the_connection_works(tmp_path: Path) -> None:
    (snippet,) = (snippet for snippet in blocks("bash") if "airflow connections add" in snippet)
    home = tmp_path / "airflow"
    home.mkdir()
    command_line = AirflowCli(home, {})
    command = snippet.replace("\\\n", " ").removeprefix("airflow ")
    output = command_line.run(command, "connections get wassly_default -o json")
    assert "Successfully added `conn_id`=wassly_default" in output
    assert command_line.query("select conn_id, conn_type, login from connection where conn_id = 'wassly_default'") == [
        ("wassly_default", "wassly", "you@example.com")
    ]


def test_the_documented_receipt_has_the_keys_of_a_real_one(wassly_default: Sandbox) -> None:
    from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator

    (shown,) = blocks("json")
    task = WasslySendMessageOperator(task_id="send", contact_mobile_number="+447700900123", message="Hello")
    returned = task.execute({})
    assert returned.keys() == json.loads(shown).keys()
    assert os.environ["AIRFLOW_CONN_WASSLY_DEFAULT"] == wassly_default.connection


def test_it_says_what_is_tested() -> None:
    # "make test-matrix" shows whether these pass.
    assert matrix.table() in PAGES["docs/supported-versions.md"]


def test_the_package_says_that_it_is_for_the_pythons_that_are_tested() -> None:
    classifiers = metadata("airflow-provider-wassly").get_all("Classifier") or []
    versions = [
        found[1]
        for classifier in classifiers
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", classifier))
    ]
    assert versions == list(matrix.PYTHONS)


def without_code(markdown: str) -> str:
    return re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return what can be linked to in a page: its headings, spelt as GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere() -> None:
    links = [
        (page, link)
        for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
        for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text()))
        if not re.match(r"[a-z]+:", link)
    ]
    broken = []
    for page, link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            broken.append((page.name, link))
    assert len(links) > 60
    assert broken == []


def texts_of_the_package() -> list[str]:
    """Return every text in the code, with an ellipsis for what is filled in."""
    texts = []
    for file in (ROOT / "airflow_provider_wassly").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"%[-0-9.]*[a-z]", "…", node.value))
    return texts


def test_what_it_quotes_of_the_log_is_logged() -> None:
    (section,) = re.findall(
        r"^## What the log says\n(.*?)^## ", PAGES["docs/troubleshooting.md"], re.DOTALL | re.MULTILINE
    )
    cells = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
    quotes = [quote for cell in cells for quote in re.findall(r"`(.*?)`", cell)]
    texts = texts_of_the_package()
    missing = [
        quote
        for quote in quotes
        if not any(re.search(".*".join(map(re.escape, quote.split("…"))), text, re.DOTALL) for text in texts)
    ]
    assert len(quotes) > 15
    assert missing == []
