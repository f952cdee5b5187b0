"""Throughput and memory of a large upload by the operator, over plain HTTP and TLS, compared with peers."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.benchmarks.figures import Figure
from tests.benchmarks.processes import alone, server

ROUNDS = 5
LEAST = 0.75
MOST_MEBIBYTES = 8


@dataclass(frozen=True)
class Target:
    """
    The target of the uploads.

    :param url: the server's URL.
    :param verify: as in requests.
    """

    url: str
    verify: bool | str


#: Sends a file and returns how many seconds that took.
Send = Callable[[Target, Path], float]


def curl(target: Target, path: Path) -> float:
    command = ["curl", "-s", "-o", os.devnull, "-w", "%{time_total}", "-F", f"document=@{path}", target.url]
    if isinstance(target.verify, str):
        command += ["--cacert", target.verify]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def operator(target: Target, path: Path) -> float:
    parts = urlsplit(target.url)
    extra = {"apikey": "k", "token": "t", "instance_id": "i", "verify": target.verify}
    os.environ["AIRFLOW_CONN_WASSLY_DEFAULT"] = json.dumps(
        {"conn_type": "wassly", "host": parts.hostname, "schema": parts.scheme, "port": parts.port, "extra": extra}
    )
    from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator

    task = WasslySendMessageOperator(task_id="send", contact_mobile_number="+491701234567", document=path)
    start = time.perf_counter()
    task.execute({})
    return time.perf_counter() - start


def requests_files(target: Target, path: Path) -> float:
    import requests

    start = time.perf_counter()
    with path.open("rb") as file:
        requests.post(target.url, files={"document": file}, verify=target.verify, timeout=600)
    return time.perf_counter() - start


def encoder_default_blocks(target: Target, path: Path) -> float:
    import requests
    from requests_toolbelt import MultipartEncoder

    start = time.perf_counter()
    with path.open("rb") as file:
        body = MultipartEncoder({"document": ("f.bin", file, "application/octet-stream")})
        headers = {"Content-Type": body.content_type}
        requests.post(target.url, data=body, headers=headers, verify=target.verify, timeout=600)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Uploads:
    """
    The results for one kind of upload.

    :param seconds: the median.
    :param of_curl: the throughput as a fraction of curl's, each compared with a curl upload right next to it.
    :param growth: how many bytes the peak memory was above that for a small file.
    :param peak: the peak memory, in bytes.
    """

    seconds: float
    of_curl: float
    growth: int
    peak: int


def upload(send: Send, rounds: int, target: Target, large: Path, small: Path) -> Uploads:
    # The first call also includes imports and look-ups, which are not to be measured.
    send(target, small)
    before = peak_of_memory()
    pairs = [(curl(target, large), send(target, large)) for _ in range(rounds)]
    return Uploads(
        statistics.median(seconds for _, seconds in pairs),
        statistics.median(seconds_of_curl / seconds for seconds_of_curl, seconds in pairs),
        peak_of_memory() - before,
        peak_of_memory(),
    )


def peak_of_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(mebibytes: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder, "large.bin"), Path(folder, "small.bin")
        small.write_bytes(os.urandom(1024))
        with large.open("wb") as file:
            for _ in range(mebibytes):
                file.write(os.urandom(1 << 20))
        with server("sink") as http, server("sink", folder) as tls:
            targets = {
                "http": Target(f"http://127.0.0.1:{http}", True),
                "TLS": Target(f"https://127.0.0.1:{tls}", f"{folder}/certificate.pem"),
            }
            return [figure for name, target in targets.items() for figure in over(name, target, large, small)]


def over(protocol: str, target: Target, large: Path, small: Path) -> list[Figure]:
    ours = alone(upload, operator, ROUNDS, target, large, small)
    # These are so much slower that one round is enough.
    peers = {
        "requests files=": alone(upload, requests_files, 1, target, large, small),
        "MultipartEncoder, default blocks": alone(upload, encoder_default_blocks, 1, target, large, small),
    }
    mebibytes = large.stat().st_size / 2**20
    return [
        Figure(
            f"upload of {mebibytes:.0f} MiB over {protocol}",
            f"{ours.of_curl:.2f} × curl, {mebibytes / ours.seconds:.0f} MiB/s",
            ", ".join(f"{name} {peer.of_curl:.2f}" for name, peer in peers.items()),
            f"≥ {LEAST:g} × curl, next 1",
            ours.of_curl >= LEAST,
        ),
        Figure(
            f"growth of memory in an upload over {protocol}",
            f"{ours.growth / 2**20:.1f} MiB, to {ours.peak / 2**20:.0f}",
            ", ".join(f"{name} {peer.growth / 2**20:.1f}" for name, peer in peers.items()),
            f"≤ {MOST_MEBIBYTES} MiB",
            ours.growth <= MOST_MEBIBYTES * 2**20,
        ),
    ]
