"""Separate processes: for what is measured, and for the servers that it talks to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def alone(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Call a function in a new process, so that imports and peak memory are its own."""
    with ProcessPoolExecutor(1, get_context("spawn"), _print_nothing) as pool:
        return pool.submit(function, *arguments, **options).result()


def _print_nothing() -> None:
    # Airflow logs to standard output.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def server(name: str, *arguments: str) -> Iterator[int]:
    """Run a server from this folder, and yield the port that it prints."""
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()
