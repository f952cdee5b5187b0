"""An Airflow of their own for all tests; nothing of the user's is touched."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

# Before the first import of Airflow, which reads its environment then.
_HOME = tempfile.mkdtemp(prefix="wassly-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for _name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[_name]
os.environ.update(
    AIRFLOW_HOME=_HOME,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__DAGS_FOLDER=os.path.join(_HOME, "dags"),
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME}/airflow.db",
)
