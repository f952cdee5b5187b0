"""
Memory and throughput of a large attachment through the operator, beside peers in the same run.

Usage: ``python tests/benchmarks/upload.py [MiB]`` (512 by default). Every measurement is a process of its own.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 3
HERE = Path(__file__).resolve()


def operator(url: str, path: str) -> float:
    host, port = url.removeprefix("http://").split(":")
    connection = {"conn_type": "wassly", "host": host, "schema": "http", "port": int(port)}
    connection["extra"] = {"apikey": "k", "token": "t", "instance_id": "i"}
    os.environ["AIRFLOW_CONN_WASSLY_DEFAULT"] = json.dumps(connection)
    from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator

    task = WasslySendMessageOperator(task_id="send", contact_mobile_number="+491701234567", document=path)
    start = time.perf_counter()
    task.execute({})
    return time.perf_counter() - start


def requests_files(url: str, path: str) -> float:
    import requests

    start = time.perf_counter()
    with open(path, "rb") as file:
        requests.post(url, files={"document": file}, timeout=600)
    return time.perf_counter() - start


def encoder_default_blocks(url: str, path: str) -> float:
    import requests
    from requests_toolbelt import MultipartEncoder

    start = time.perf_counter()
    with open(path, "rb") as file:
        body = MultipartEncoder({"document": ("f.bin", file, "application/octet-stream")})
        requests.post(url, data=body, headers={"Content-Type": body.content_type}, timeout=600)
    return time.perf_counter() - start


MEASURED: dict[str, Callable[[str, str], float]] = {
    "this operator": operator,
    "requests files=": requests_files,
    "MultipartEncoder, default blocks": encoder_default_blocks,
}


def child(name: str, url: str, path: str, small: str) -> None:
    # The first call pays for imports and look-ups; what is measured is the upload.
    MEASURED[name](url, small)
    seconds = MEASURED[name](url, path)
    print(json.dumps({"seconds": seconds, "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))


def measure(name: str, url: str, path: Path) -> tuple[float, float]:
    """Return seconds and peak MiB."""
    command = [sys.executable, str(HERE), "--child", name, url, str(path), str(path.with_name("small.bin"))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    values = json.loads(done.stdout.strip().splitlines()[-1])
    return values["seconds"], values["rss"] / 1024


def curl(url: str, path: Path) -> float:
    command = ["curl", "-s", "-o", os.devnull, "-w", "%{time_total}", "-F", f"document=@{path}", url]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(mebibytes: int) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([sys.executable, str(HERE.with_name("sink.py"))], stdout=subprocess.PIPE, text=True) as sink,
    ):
        os.environ.setdefault("AIRFLOW_HOME", folder)
        try:
            assert sink.stdout is not None
            url = f"http://127.0.0.1:{int(sink.stdout.readline())}"
            large, small = Path(folder, "large.bin"), Path(folder, "small.bin")
            small.write_bytes(os.urandom(1024))
            with large.open("wb") as file:
                for _ in range(mebibytes):
                    file.write(os.urandom(1 << 20))
            rates: dict[str, list[float]] = {name: [] for name in ("curl -F", *MEASURED)}
            peaks: dict[str, list[float]] = {name: [] for name in MEASURED}
            for _ in range(ROUNDS):
                rates["curl -F"].append(mebibytes / curl(url, large))
                for name in MEASURED:
                    seconds, peak = measure(name, url, large)
                    rates[name].append(mebibytes / seconds)
                    peaks[name].append(peak)
            base = {name: statistics.median(measure(name, url, small)[1] for _ in range(ROUNDS)) for name in MEASURED}
        finally:
            sink.kill()
    reference = statistics.median(rates["curl -F"])
    print(f"\nAttachment of {mebibytes} MiB to a loopback sink, median of {ROUNDS} rounds")
    print(f"{'':36}{'MiB/s':>8}{'vs curl':>9}{'peak RSS':>11}{'RSS at 1 KiB':>14}{'growth':>9}")
    for name, values in rates.items():
        rate = statistics.median(values)
        line = f"{name:36}{rate:8.0f}{rate / reference:8.2f}x"
        if name in peaks:
            peak = statistics.median(peaks[name])
            line += f"{peak:7.0f} MiB{base[name]:10.0f} MiB{peak - base[name]:5.1f} MiB"
        print(line)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 512)
