"""Redis and PostgreSQL for one test run: separate processes on free loopback ports that keep no data."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy


def missing_programs() -> str:
    """Return what these services need and this machine lacks; empty if nothing is missing."""
    missing = []
    if shutil.which("redis-server") is None:
        missing.append("redis-server (Debian: redis-server)")
    if _postgresql_folder() is None:
        missing.append("initdb and postgres (Debian: postgresql)")
    elif os.geteuid() == 0 and not _has_user("postgres"):
        missing.append("a user postgres, because PostgreSQL does not run as root")
    return ", ".join(missing)


class Service:
    """A server process with its own folder, which is deleted when it stops."""

    def __init__(self) -> None:
        # Not in pytest's folder, which other users cannot enter.
        self.folder = Path(tempfile.mkdtemp(prefix="wassly-service-"))
        self.password = secrets.token_hex(16)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """End the process and remove the folder."""
        if self._process is not None:
            # For PostgreSQL this means: stop now, even with clients connected.
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, *command: str, user: str | None = None, config: str = "", works: Callable[[], bool]) -> None:
        output = self.folder / "output.log"
        with output.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                # In its own session, so that Ctrl-C in the terminal does not stop it before the processes that need it.
                start_new_session=True,
                **_as_user(user),
            )
        assert self._process.stdin is not None
        with self._process.stdin as stdin:
            stdin.write(config.encode())
        deadline = time.monotonic() + 60
        while not works():
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"{command[0]} does not work\n{output.read_text(errors='replace')}")
            time.sleep(0.1)


class Redis(Service):
    """A Redis, as Celery's broker."""

    @property
    def url(self) -> str:
        """The address, with the password."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it; returns when it works."""
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": self.password,
            "dir": self.folder,
            "save": '""',
            "appendonly": "no",
        }
        # Through standard input, so that the process list does not show the password.
        config = "".join(f"{name} {value}\n" for name, value in settings.items())
        self._run("redis-server", "-", config=config, works=self._answers)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(f"AUTH {self.password}\r\n".encode())
                return connection.recv(64).startswith(b"+OK")
        except OSError:
            return False


class PostgreSQL(Service):
    """A PostgreSQL with an empty database, tuned for speed rather than durability."""

    @property
    def address(self) -> str:
        """User, password, host and database, as in a URL."""
        return f"airflow:{self.password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it; returns when it works."""
        programs = _postgresql_folder()
        assert programs is not None
        user = "postgres" if os.geteuid() == 0 else None
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        for path in (self.folder, password_file):
            if user is not None:
                shutil.chown(path, user)
        data = self.folder / "data"
        options = {
            "--pgdata": data,
            "--username": "airflow",
            "--pwfile": password_file,
            "--auth": "scram-sha-256",
            "--encoding": "UTF8",
            "--locale": "C",
        }
        command = [str(programs / "initdb"), "--no-sync"]
        command += [str(part) for option in options.items() for part in option]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, **_as_user(user))
        assert done.returncode == 0, done.stdout + done.stderr
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._run(str(programs / "postgres"), "-D", str(data), *arguments, user=user, works=self._answers)

    def _answers(self) -> bool:
        engine = sqlalchemy.create_engine(f"postgresql+psycopg2://{self.address}")
        try:
            with engine.connect():
                return True
        except sqlalchemy.exc.OperationalError:
            return False
        finally:
            engine.dispose()


def _postgresql_folder() -> Path | None:
    """Return the folder with the newest version's PostgreSQL programs; Debian does not put them on the PATH."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]), reverse=True
    )
    on_path = shutil.which("initdb")
    return found[0].parent if found else Path(on_path).parent if on_path else None


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _as_user(name: str | None) -> dict[str, Any]:
    """Return the arguments for subprocess that run a program as another user."""
    return {} if name is None else {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}
