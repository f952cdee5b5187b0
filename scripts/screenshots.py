"""
Takes the documentation's screenshots of the sandbox's inbox page: ``docs/inbox.png`` and ``docs/chaos.png``.

Needs selenium and Chromium with its driver. For the same look as the existing pictures, install the Noto fonts with
colour emoji.
"""

from __future__ import annotations

import struct
import sys
import tempfile
import zlib
from datetime import datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import requests
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from airflow_provider_wassly.client import Attachment, WasslyClient
from airflow_provider_wassly.notifications.default_message import default_message
from airflow_provider_wassly.sandbox import Sandbox

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.browser import chromium  # noqa: E402

DOCS = ROOT / "docs"
SIZE = (1200, 760)
LARGEST = 150_000
INSTANCE = "reports-phone"
HEAD_OF_SALES = "+447700900123"
WEEK = [("Mon", 41.2), ("Tue", 44.8), ("Wed", 39.5), ("Thu", 52.1), ("Fri", 61.7), ("Sat", 72.3), ("Sun", 58.9)]

ORDERS = "order_id,region,items,amount\n" + "".join(
    f"{10_000 + number},{'North' if number % 3 else 'South'},{number % 5 + 1},{number * 7 % 190 + 12}.50\n"
    for number in range(1204)
)
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n" + (
    b"% nothing but the size of a report of some pages\n" * 3600
)


def chart() -> str:
    """Draw the chart of a report, as SVG."""
    bars = []
    for number, (day, amount) in enumerate(WEEK):
        x, height = 62 + number * 84, amount * 3
        colour = "#0f766e" if amount == max(value for _, value in WEEK) else "#8cc7bf"
        bars.append(
            f'<rect x="{x}" y="{290 - height}" width="52" height="{height}" rx="4" fill="{colour}"/>'
            f'<text x="{x + 26}" y="{282 - height}" text-anchor="middle">{amount:.1f}k</text>'
            f'<text x="{x + 26}" y="314" text-anchor="middle" fill="#55625e">{day}</text>'
        )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="680" height="336" font-family="Noto Sans, sans-serif" '
        'font-size="15" fill="#16211f"><rect width="680" height="336" fill="#fff"/>'
        '<text x="62" y="38" font-size="19" font-weight="bold">Revenue per day, £</text>'
        f'<path d="M44 290.5H644" stroke="#87948f"/>{"".join(bars)}</svg>'
    )


def failure(task_id: str, error: Exception, **values: object) -> str:
    """Return the notifier's default text for a failed task."""
    end = datetime.now(timezone.utc)
    ti = SimpleNamespace(
        dag_id="orders_hourly",
        task_id=task_id,
        map_index=-1,
        run_id="scheduled__2026-11-26T06:00:00+00:00",
        start_date=end - timedelta(minutes=4, seconds=12),
        end_date=end,
        log_url=f"http://airflow.example.com/dags/orders_hourly/tasks/{task_id}",
        **values,
    )
    dag_run = SimpleNamespace(logical_date=datetime(2026, 11, 26, 6, tzinfo=timezone.utc))
    return default_message({"ti": ti, "dag_run": dag_run, "exception": error})


def browser(profile: str) -> WebDriver:
    """Start Chromium."""
    found = chromium.programs()
    if found is None:
        raise SystemExit("Chromium or chromedriver is missing: apt-get install chromium chromium-driver")
    return chromium.start(found, chromium.options(profile, "--hide-scrollbars", "--disable-lcd-text"))


def resize(driver: WebDriver, width: int, height: int) -> None:
    """Set the size of the page, without the window's frame."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def prefer(driver: WebDriver, scheme: str) -> None:
    """Set the preferred colour scheme, light or dark."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def picture_of_chart(driver: WebDriver) -> bytes:
    """Render the chart as a PNG, like the output of a plotting library."""
    with tempfile.NamedTemporaryFile("w", suffix=".svg") as file:
        file.write(chart())
        file.flush()
        resize(driver, 680, 336)
        driver.get(f"file://{file.name}")
        picture: bytes = driver.get_screenshot_as_png()
    return picture


def attachment(name: str, content: bytes) -> Attachment:
    """Return an attachment with this content."""
    return Attachment(name, len(content), lambda: BytesIO(content))


def fill(box: Sandbox, chart_png: bytes) -> None:
    """Send what a company's pipelines might send in a morning."""
    account = {"apikey": "sandbox-apikey", "base_url": box.url, "token": "sandbox-token"}
    with WasslyClient(**account) as client:  # type: ignore[arg-type]

        def send(number: str, name: str | None, text: str, **files: Any) -> None:
            client.send_message(
                contact_mobile_number=number, contact_name=name, instance_id=INSTANCE, message=text, **files
            )

        for number, name in (
            ("+4915123456789", "Jonas Weber"),
            ("+33612345678", "Amélie Laurent"),
            ("+5215512345678", None),
        ):
            send(number, name, "Your parcel *has left our warehouse* and arrives tomorrow between 9:00 and 13:00.")
        send("+97455123456", "ليلى حسن", "*فاتورتك جاهزة*\nرقم الفاتورة: 10482\nيرجى السداد قبل 30 نوفمبر.")
        send(
            "+966501234567",
            "خالد العتيبي",
            "مرحباً خالد،\nتم *شحن طلبك* رقم ‎10517‎ وسيصل غداً.",
            document=attachment("الفاتورة-10517.pdf", PDF[:48_000]),
        )
        send(
            "+447700900456",
            "Data platform on-call",
            failure("load_orders", ConnectionError("warehouse:5432 refused the connection"), state="up_for_retry"),
        )
        error = ValueError("column 'discount' is missing in orders_2026-11-26.parquet")
        send("+447700900456", "Data platform on-call", failure("check_orders", error, state="failed"))
        send(
            HEAD_OF_SALES,
            "Maya Thompson",
            "*Daily sales report*, 25 November\n\n"
            "- Orders: *1,204* (+8%)\n- Revenue: *£58.9k*\n- Refunds: 17\n\n"
            "> _South_ is back above target after three days.\n"
            "Dashboard: https://bi.example.com/sales/daily",
            document=attachment("orders-2026-11-25.csv", ORDERS.encode()),
        )
        send(
            HEAD_OF_SALES,
            "Maya Thompson",
            "The week so far. Saturday was the *best day this quarter*.",
            media=attachment("revenue-week-48.png", chart_png),
        )
        send(
            HEAD_OF_SALES,
            "Maya Thompson",
            "And the same for the board, on one page.",
            document=attachment("Board summary week 48.pdf", PDF),
        )


def add_faults(box: Sandbox) -> None:
    """Add the faults for the second picture."""
    for rule in (
        {"name": "http_500", "times": 2},
        {"name": "hang_after_accept", "share": 0.25, "to": HEAD_OF_SALES},
    ):
        requests.post(f"{box.url}/sandbox/faults", json=rule, timeout=10).raise_for_status()


def open_chat(driver: WebDriver, box: Sandbox, number: str) -> None:
    """Open a chat and wait until the page is complete."""
    driver.get("about:blank")
    driver.get(f"{box.url}/#{number}")
    WebDriverWait(driver, 10).until(
        lambda _: driver.execute_script(
            "return document.querySelectorAll('.contacts .count').length > 0"
            " && document.querySelectorAll('.bubble').length > 0"
            " && [...document.images].every((image) => image.complete)"
        )
    )


def smaller(png: bytes) -> bytes:
    """Rewrite an 8-bit RGB PNG without filters: these suit photos, and a page with flat areas is smaller without."""
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        chunks[kind] = chunks.get(kind, b"") + png[at + 8 : at + 8 + length]
        at += length + 12
    width, height, *layout = struct.unpack(">II5B", chunks[b"IHDR"])
    if layout != [8, 2, 0, 0, 0]:
        return png
    packed = zlib.decompress(chunks[b"IDAT"])
    before, rows, line = bytearray(width * 3), b"", width * 3 + 1
    for start in range(0, height * line, line):
        row = bytearray(packed[start + 1 : start + line])
        for i in range(len(row)):
            left, corner = (row[i - 3], before[i - 3]) if i >= 3 else (0, 0)
            up = before[i]
            nearest = min((left, up, corner), key=lambda value: abs(left + up - corner - value))
            row[i] = (row[i] + (0, left, up, (left + up) // 2, nearest)[packed[start]]) & 255
        rows += b"\0" + row
        before = row
    parts = {b"IHDR": chunks[b"IHDR"], b"IDAT": zlib.compress(rows, 9), b"IEND": b""}
    return png[:8] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )


def save(driver: WebDriver, name: str) -> None:
    """Save a screenshot."""
    driver.execute_script("document.activeElement.blur()")
    path = DOCS / name
    path.write_bytes(smaller(driver.get_screenshot_as_png()))
    size = path.stat().st_size
    if size > LARGEST:
        raise SystemExit(f"{path} is too large for the documentation: {size} bytes")
    print(f"{path.relative_to(ROOT)}: {size} bytes")


def main() -> None:
    DOCS.mkdir(exist_ok=True)
    devices = [{"instance_id": INSTANCE, "name": "Reports phone"}]
    with tempfile.TemporaryDirectory() as profile, Sandbox(devices=devices) as box:
        driver = browser(profile)
        try:
            fill(box, picture_of_chart(driver))
            resize(driver, *SIZE)
            prefer(driver, "light")
            open_chat(driver, box, HEAD_OF_SALES)
            save(driver, "inbox.png")
            add_faults(box)
            prefer(driver, "dark")
            open_chat(driver, box, "+447700900456")
            driver.find_element(By.ID, "chaos-button").click()
            WebDriverWait(driver, 10).until(lambda _: driver.find_elements(By.CSS_SELECTOR, "#rules li"))
            driver.execute_script("document.getElementById('device-rows').scrollIntoView()")
            save(driver, "chaos.png")
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
