"""How a broadcast's memory grows with its list, and how fast it runs when Wassly answers instantly."""

from __future__ import annotations

import resource

from tests.benchmarks import campaign
from tests.benchmarks.figures import Figure
from tests.benchmarks.processes import alone, server

WORKERS = 4
#: More than the operator reads at once.
FEW = 2500
#: Constant except for the numbers, which are remembered to find duplicates.
MOST = 256


def broadcast(port: int, recipients: int) -> tuple[int, float]:
    """Return the peak memory in bytes, and the messages per second."""
    rate = campaign.send(port, recipients, WORKERS, {})
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, rate


def measure(recipients: int) -> list[Figure]:
    with server("service") as port:
        peak_of_few, _ = alone(broadcast, port, FEW)
        peak, rate = alone(broadcast, port, recipients)
    growth = (peak - peak_of_few) / (recipients - FEW)
    return [
        Figure(
            "growth of memory in a broadcast",
            f"{growth:.0f} bytes a recipient",
            f"{FEW:,} recipients: {peak_of_few / 2**20:.1f} MiB, {recipients:,}: {peak / 2**20:.1f} MiB",
            f"≤ {MOST} bytes",
            growth <= MOST,
        ),
        Figure(f"broadcast without latency, {WORKERS} workers", f"{rate:.0f} messages/s"),
    ]
