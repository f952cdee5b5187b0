"""Plays: what happens in Airflow while the tests wait. All of them run at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from airflow_provider_wassly.sandbox import Sandbox
from tests.support.airflow_server import AirflowServer

#: Seconds that a play may take, on a busy machine.
SECONDS = 500
#: Held by a play that needs the triggerer alive, and by one that kills it.
TRIGGERER = threading.Lock()


class Play:
    """
    DAGs, the services they send to, and what happens to them. A test module names its own as ``PLAY``.

    :param server: the Airflow to run the DAGs. It is not started yet, so DAGs and connections can still be added.
    """

    #: Whether it runs in the shared Airflow. If not, it has to start and stop its own.
    shares = True

    def __init__(self, server: AirflowServer) -> None:
        self.server = server
        self.name = type(self).__name__.lower()
        self.home = server.home / self.name
        self.home.mkdir()
        self._boxes: list[Sandbox] = []

    def add_dags(self, code: str) -> None:
        """Add a DAG file with the play's name. In the file, ``HOME`` is the folder with the play's files."""
        lines = f"from pathlib import Path\n\nHOME = Path({str(self.home)!r})\n"
        (self.server.dags / f"{self.name}.py").write_text(lines + code)

    def start_sandbox(self, conn_id: str, *, extra: dict[str, Any] | None = None, **arguments: Any) -> Sandbox:
        """Start a sandbox for this play; ``extra`` is added to the connection's extra."""
        box = Sandbox(**arguments).start()
        self._boxes.append(box)
        self.server.add_connection(conn_id, box, **extra or {})
        return box

    def perform(self) -> None:
        """Run the play to its end. Called in a separate thread."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop everything that the play started."""
        # In parallel, because each takes a moment.
        with ThreadPoolExecutor(len(self._boxes)) as threads:
            for box in self._boxes:
                threads.submit(box.stop)
