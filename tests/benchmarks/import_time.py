"""
Imports modules one after the other as a DAG file does, after Airflow's SDK. Prints what each took, as JSON.

Usage: ``python tests/benchmarks/import_time.py MODULE…``. By its path and not with ``-m``, which would put the checkout
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
