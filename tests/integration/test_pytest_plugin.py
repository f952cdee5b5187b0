"""The plugin in a user's test run: each test here starts a separate pytest."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_docs import blocks, for_this_airflow
from tests.support.shell import run_in_shell

HEAD = """
import os

from airflow_provider_wassly.client import WasslyClient


def send(box, message):
    with WasslyClient(
        apikey="sandbox-apikey", email="sandbox@example.com", password="sandbox-password", base_url=box.url
    ) as client:
        client.send_message(contact_mobile_number="+447700900123", instance_id="sandbox-instance", message=message)
"""


def run_tests(folder: Path, source: str, *options: str, **environment: str) -> str:
    (folder / "test_it.py").write_text(HEAD + source)
    # Without a plugin that takes longer to start than most of these tests run.
    return run_in_shell(folder, " ".join(["python -m pytest -p no:hypothesispytest", *options]), **environment)


def test_the_fixture_is_there_without_a_conftest_and_new_for_each_test(tmp_path: Path) -> None:
    source = """
from airflow_provider_wassly.hooks.wassly import WasslyHook

seen = []


def test_one(wassly_sandbox):
    assert os.environ["AIRFLOW_CONN_WASSLY_DEFAULT"] == wassly_sandbox.connection
    WasslyHook().send_message("+447700900123", "Hello")
    assert wassly_sandbox.assert_sent(to="+447700900123", text="Hello").id == 1
    seen.append(wassly_sandbox)


def test_two(wassly_sandbox):
    assert wassly_sandbox not in seen
    assert wassly_sandbox.messages == wassly_sandbox.calls == []
"""
    assert "2 passed" in run_tests(tmp_path, source)


def test_the_variable_is_as_it_was_after_the_test_and_the_sandbox_has_stopped(tmp_path: Path) -> None:
    source = """
import urllib.request

import pytest

seen = []


@pytest.fixture
def around():
    yield
    assert os.environ.get("AIRFLOW_CONN_WASSLY_DEFAULT") == os.environ.get("BEFORE")
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(seen[0].url)


def test_it(around, wassly_sandbox, monkeypatch):
    seen.append(wassly_sandbox)
    monkeypatch.undo()
    assert os.environ["AIRFLOW_CONN_WASSLY_DEFAULT"] == wassly_sandbox.connection
"""
    assert "1 passed" in run_tests(tmp_path, source)
    mine = "wassly://mine"
    assert "1 passed" in run_tests(tmp_path, source, AIRFLOW_CONN_WASSLY_DEFAULT=mine, BEFORE=mine)


def test_a_token_of_an_earlier_sandbox_is_not_tried(tmp_path: Path) -> None:
    # The second sandbox gets the same port as the first, as can happen by chance.
    source = """
import functools

import pytest

from airflow_provider_wassly import sandbox

ports = []


@pytest.fixture(autouse=True)
def same_port(monkeypatch):
    if ports:
        monkeypatch.setattr(sandbox, "Sandbox", functools.partial(sandbox.Sandbox, port=ports[0]))


@pytest.mark.parametrize("time", [1, 2])
def test_it(time, wassly_sandbox):
    ports.append(wassly_sandbox.port)
    assert set(ports) == {ports[0]}
    send(wassly_sandbox, "Hello")
    assert [(call.endpoint, call.status) for call in wassly_sandbox.calls] == [("login", 200), ("send", 200)]
"""
    assert "2 passed" in run_tests(tmp_path, source)


def test_a_failure_is_shown_at_the_line_of_the_test_alone(tmp_path: Path) -> None:
    source = """
def test_it(wassly_sandbox):
    send(wassly_sandbox, "Hello Ann")
    wassly_sandbox.assert_sent(text="Hello Amy")
"""
    output = run_tests(tmp_path, source)
    assert ">       wassly_sandbox.assert_sent(" in output
    assert "E       AssertionError: 1 message was sent, not the expected one\n" in output
    assert "E           - Hello Amy\n" in output
    assert "assertions.py" not in output
    assert "box.py" not in output


def test_without_the_extra_the_error_is_one_line_that_names_it(tmp_path: Path) -> None:
    blocked = """
import sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "starlette":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Blocked())
"""
    (tmp_path / "conftest.py").write_text(blocked)
    source = """
def test_it(wassly_sandbox):
    pass


def test_that_needs_no_sandbox():
    pass
"""
    output = run_tests(tmp_path, source)
    assert "1 passed, 1 error" in output
    _, _, shown = output.partition("ERROR at setup of test_it")
    shown, _, _ = shown.partition("=====")
    _, error = shown.strip().splitlines()
    assert re.fullmatch(
        r"The sandbox needs starlette[.\w]*: pip install 'airflow-provider-wassly\[sandbox\]'", error
    ), shown


def test_loading_the_plugin_imports_nothing_but_pytest() -> None:
    script = """
import sys, typing
import pytest
before = set(sys.modules)
import airflow_provider_wassly.pytest_plugin
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['airflow_provider_wassly', 'airflow_provider_wassly.pytest_plugin']"


# The documentation

PAGE = "docs/testing-dags.md"
(SCRIPT,) = blocks("bash", PAGE)
INSTALL, EXPORT, MIGRATE = SCRIPT.splitlines()


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Airflow's database, set up as on the page."""
    folder = tmp_path_factory.mktemp("project")
    assert INSTALL.startswith("pip install ")
    run_in_shell(folder, f"{EXPORT}\n{MIGRATE}")
    return folder


@pytest.fixture
def project(migrated: Path) -> Path:
    """The files of a user who has followed the page."""
    dag, *tests = blocks("python", PAGE)
    (migrated / "dags").mkdir(exist_ok=True)
    (migrated / "tests").mkdir(exist_ok=True)
    (migrated / "dags" / "daily_orders.py").write_text(for_this_airflow(dag))
    (migrated / "tests" / "test_daily_orders.py").write_text("\n\n".join(tests))
    return migrated


def test_the_tests_of_the_page_pass(project: Path) -> None:
    assert "2 passed" in (output := run_in_shell(project, f"{EXPORT}\npytest")), output


def test_the_error_of_the_page_is_what_a_test_shows(project: Path) -> None:
    file = project / "tests" / "test_daily_orders.py"
    right = 'text="*Orders of 2026-11-23*", document=report)'
    assert right in file.read_text()
    wrong = 'text="*Orders of 2026-11-24*", document="orders-2026-11-24.csv")'
    file.write_text(file.read_text().replace(right, wrong))
    output = run_in_shell(project, f"{EXPORT}\npytest -k test_the_report_is_sent || true")
    shown = [line.removeprefix("E").removeprefix(" " * 7) for line in output.splitlines() if line.startswith("E   ")]
    (block,) = blocks("text", PAGE)
    assert [line.rstrip() for line in shown] == block.splitlines(), output
