"""How the memory of a broadcast grows with its list, and how fast it is when Wassly takes no time."""

from __future__ import annotations

import resource

from tests.benchmarks import campaign
from tests.benchmarks.figures import Figure
from tests.benchmarks.processes import alone, server

WORKERS = 4
#: More than the operator reads at once.
FEW = 2500
#: Flat but for the numbers: they are remembered, so that none that is in the list twice gets two messages.
MOST = 256


def broadcast(port: int, recipients: int) -> tuple[int, float]:
    """Return the peak of memory in bytes, and messages a second."""
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
