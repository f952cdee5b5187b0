"""What happens in Airflow while the tests wait: all of it at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from airflow_provider_wassly.sandbox import Sandbox
from tests.support.airflow_server import AirflowServer

#: How long a play may take, on a machine that has much else to do.
SECONDS = 500
#: Held by a play that needs the triggerer alive, and by one that kills it.
TRIGGERER = threading.Lock()


class Play:
    """
    DAGs, what they send to and what befalls them. A module of tests names its own as ``PLAY``.

    :param server: runs the DAGs. It is not started yet: now is the time to add DAGs and connections.
    """

    #: Whether it is in the Airflow that all share. If not, it has to start and to stop one of its own.
    shares = True

    def __init__(self, server: AirflowServer) -> None:
        self.server = server
        self.name = type(self).__name__.lower()
        self.home = server.home / self.name
        self.home.mkdir()
        self._boxes: list[Sandbox] = []

    def add_dags(self, code: str) -> None:
        """Add a DAG file, whose name is the play's. It finds the files of the play in ``HOME``."""
        lines = f"from pathlib import Path\n\nHOME = Path({str(self.home)!r})\n"
        (self.server.dags / f"{self.name}.py").write_text(lines + code)

    def start_sandbox(self, conn_id: str, *, extra: dict[str, Any] | None = None, **arguments: Any) -> Sandbox:
        """Start a sandbox for this play; ``extra`` is for the connection's."""
        box = Sandbox(**arguments).start()
        self._boxes.append(box)
        self.server.add_connection(conn_id, box, **extra or {})
        return box

    def perform(self) -> None:
        """Let it happen; returns when it is over. It has a thread of its own."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop whatever it has started."""
        # Each takes a moment.
        with ThreadPoolExecutor(len(self._boxes)) as threads:
            for box in self._boxes:
                threads.submit(box.stop)
