from __future__ import annotations

import shutil
from pathlib import Path

from airflow_provider_wassly.sandbox import Sandbox
from tests.browser.page import Page
from tests.support.airflow_cli import AirflowCli

EXAMPLES = Path(__file__).parents[2] / "example_dags"


def test_what_a_dag_sends_shows_up_while_the_page_is_open(page: Page, box: Sandbox, tmp_path: Path) -> None:
    home = tmp_path / "airflow"
    home.mkdir()
    airflow = AirflowCli(home, {"AIRFLOW_CONN_WASSLY_DEFAULT": box.connection, "TMPDIR": str(tmp_path)})
    shutil.copytree(EXAMPLES, airflow.dags, dirs_exist_ok=True)
    page.open()
    assert page.visible("#welcome")
    page.js("window.isTheSame = true")
    output = airflow.test_dag("wassly_daily_report")
    page.wait(lambda: page.names() == ["+447700900123"])
    page.click("#contact-list a")
    (text,) = page.wait(page.bubbles)
    (report,) = (tmp_path / "wassly_reports").iterdir()
    day = report.stem.removeprefix("orders-")
    assert text.startswith(f"Orders of {day}"), output
    assert page.texts(".bubble .file-name") == [report.name]
    assert page.js("return window.isTheSame") is True
