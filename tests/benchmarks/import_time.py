"""
Imports modules one after another, after Airflow's SDK, as a DAG file does. Prints the time for each, as JSON.

Usage: ``python tests/benchmarks/import_time.py MODULE…``. Run it by its path: with ``-m``, the checkout would come
before the wheel.
"""

from __future__ import annotations

import importlib
import json
import sys
import time

from airflow.sdk import DAG, BaseHook, BaseOperator, task  # noqa: F401

HEAVY = {"requests", "requests_toolbelt", "phonenumbers", "urllib3"}

imports = []
for name in sys.argv[1:]:
    before = set(sys.modules)
    start = time.perf_counter()
    module = importlib.import_module(name)
    seconds = time.perf_counter() - start
    heavy = sorted(HEAVY & (set(sys.modules) - before))
    imports.append({"milliseconds": seconds * 1000, "heavy": heavy, "path": module.__file__})
print(json.dumps(imports))
