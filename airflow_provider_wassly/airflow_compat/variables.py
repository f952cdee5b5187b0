"""Read and write Airflow's Variables, and find out whether that is possible."""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import sys
import threading
from typing import Any

from airflow_provider_wassly.airflow_compat import versions


def reads_saved_connections() -> bool:
    """Return whether this process can read the connections in Airflow's database."""
    if versions.VERSION < (3, 1) or os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "server":
        return True
    return hasattr(sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS")


def never_expire() -> datetime.timedelta:
    """Return the retention with which ``task_state_store`` keeps a value as long as the DAG run (Airflow 3.3+)."""
    retention: datetime.timedelta = versions.first_of("NEVER_EXPIRE", "airflow.sdk.execution_time.context")
    return retention


def can_reach_airflow() -> bool:
    """Return whether this thread can read and write Variables."""
    if versions.IS_AIRFLOW_2:
        return True
    from airflow.sdk.execution_time import task_runner

    if not hasattr(task_runner, "SUPERVISOR_COMMS"):
        return False  # a plain Python program
    # Before 3.2, answers from Airflow can reach the wrong thread.
    return versions.VERSION >= (3, 2) or threading.current_thread() is threading.main_thread()


def key_of(kind: str, conn_id: str) -> str:
    """Return the key of a connection's Variable, such as ``wassly_quota__wassly_default``."""
    # Airflow 3.0 loses keys with a slash, and a key can have at most 250 characters.
    usable = re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", conn_id)
    return f"{kind}__{conn_id if usable else hashlib.sha256(conn_id.encode()).hexdigest()}"


def get_variable(key: str) -> str | None:
    """
    Return a Variable from Airflow's database, ``None`` if it does not exist. Only for a running task.

    :raises Exception: when Airflow does not answer, or the value cannot be decrypted.
    """
    if versions.IS_AIRFLOW_2:
        from airflow.models.variable import Variable
        from airflow.utils.session import create_session

        with create_session() as session:
            found = session.query(Variable).filter_by(key=key).one_or_none()
            if found is None:
                return None
            if found.val is None:
                raise ValueError(f"cannot decrypt the Variable {key}; the fernet key has changed")
            text: str = found.val
            return text
    from airflow.sdk.execution_time.comms import GetVariable, VariableResult

    answer = _ask(GetVariable(key=key))
    return answer.value if isinstance(answer, VariableResult) else None


def set_variable(key: str, value: str, description: str) -> None:
    """
    Set a Variable. Only for a running task.

    :raises Exception: when Airflow does not confirm it.
    """
    if versions.IS_AIRFLOW_2:
        from airflow.models.variable import Variable

        Variable.set(key, value, description)
        return
    from airflow.sdk.execution_time.comms import PutVariable

    _ask(PutVariable(key=key, value=value, description=description))


def delete_variable(key: str) -> None:
    """
    Delete a Variable if it exists. Only for a running task.

    :raises Exception: when Airflow does not confirm it.
    """
    if versions.IS_AIRFLOW_2:
        from airflow.models.variable import Variable

        Variable.delete(key)
        return
    from airflow.sdk.execution_time.comms import DeleteVariable

    _ask(DeleteVariable(key=key))


def _ask(request: Any) -> Any:
    """Send a request to Airflow from a running task; return the answer, ``None`` for "not found"."""
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse

    if not hasattr(task_runner, "SUPERVISOR_COMMS"):
        raise RuntimeError("only a running task can reach Airflow's Variables")
    answer = task_runner.SUPERVISOR_COMMS.send(request)
    if not isinstance(answer, ErrorResponse):
        return answer
    if answer.error == ErrorType.VARIABLE_NOT_FOUND:
        return None
    raise AirflowRuntimeError(answer)
