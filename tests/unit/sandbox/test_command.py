from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_provider_wassly.sandbox.__main__ import main

# A Python in which the module of this name is not installed.
WITHOUT = """
import runpy, sys

missing = sys.argv.pop()

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
runpy.run_module("airflow_provider_wassly.sandbox", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["starlette", "uvicorn", "python_multipart"])
def test_a_missing_extra_is_named(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, module], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == f"The sandbox needs {module}: pip install 'airflow-provider-wassly[sandbox]'\n"
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--host", "0.0.0.0"], "host: '0.0.0.0' would let other machines read all messages; see --allow-remote"),
        (["--port", "65536"], "argument --port: invalid port value: '65536'"),
        (["--port", "http"], "argument --port: invalid port value: 'http'"),
        (["--conversations", "-1"], "conversations must be an integer of 0 or more, not -1"),
        (["--conversations", "many"], "argument --conversations: invalid int value: 'many'"),
        (["--token", ""], "token must be a non-empty string, not ''"),
        (["--device", "a", "--device", "a"], "devices: two have the same instance_id"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_a_wrong_option_is_an_error_in_one_line_and_exit_2(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: {reason}")


def test_help_names_every_option_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for shown in (
        "(default: 127.0.0.1)",
        "(default: 8095)",
        "(default: sandbox-apikey)",
        "(default: sandbox-token)",
        "(default: sandbox@example.com)",
        "(default: sandbox-password)",
        "(default: 1000)",
        "(default: sandbox-instance)",
        "--allow-remote",
    ):
        assert shown in text
    assert "None" not in text
    assert "False" not in text


def test_a_host_that_cannot_be_is_one_line_and_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", "a..b", "--allow-remote"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cannot listen on a..b port 8095: ")
