"""The default text of a notification."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_provider_wassly.airflow_compat import masking, tasks
from airflow_provider_wassly.client.messages import MAX_MESSAGE
from airflow_provider_wassly.notifications.plain_text import plain_text

log = logging.getLogger(__name__)

#: Characters kept of an exception's first line; a longer one would hide the rest of the message on a phone.
_MAX_ERROR = 200

#: Failed tasks listed by name; the rest are only counted.
_MAX_NAMES = 5

_TASK_HEADS = {
    "failed": "❌ *Task failed*",
    "up_for_retry": "🔁 *Task failed, will be retried*",
    "success": "✅ *Task succeeded*",
    "skipped": "⏭️ *Task skipped*",
    "running": "▶️ *Task started*",
}

#: Reasons for a DAG callback that the headline already gives.
_PLAIN_REASONS = {"success", "task_failure"}


def default_message(context: Any, limit: int = MAX_MESSAGE) -> str:
    """
    Describe what happened, short enough for a phone, in WhatsApp's formatting.

    The context differs between Airflow versions and kinds of callback. Details that it does not have are left out.

    :param context: the context of a task callback, a DAG callback or a deadline alert.
    :param limit: the maximum length, in characters.
    """
    return _attempt(_compose, context, limit) or "ℹ️ *Airflow callback*"


def _compose(context: Any, limit: int) -> str:
    if _value(context, "deadline"):
        lines = _deadline(context)
    elif _value(context, "slas"):
        lines = [_named("⏰ *SLA missed*", _value(_value(context, "dag"), "dag_id")), None]
    elif _value(context, "ti") is None or _value(context, "reason") is not None:
        # Only DAG callbacks get a reason. The task in their context is not necessarily the one that failed.
        lines = _dag(context)
    else:
        lines = _task(context, _value(context, "ti"))
    *facts, page = lines
    return _fitted([fact for fact in facts if fact], page, limit)


def _fitted(lines: list[str], page: str | None, limit: int) -> str:
    """Join the lines and the URL; if the result is too long, cut the longest lines."""
    end = f"\n{page}" if page else ""
    whole = "\n".join(lines) + end
    if len(whole) <= limit:
        return whole
    if len(end) > limit // 2:  # a truncated URL leads nowhere, so drop it
        return _fitted(lines, None, limit)
    room = limit - len(lines) - len(end)
    width = next(width for width in range(room, 0, -1) if sum(min(len(line), width) for line in lines) <= room)
    return "\n".join(_cut(line, width) for line in lines) + end


def _cut(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    kept = line[: width - 2]
    return f"{kept}…`" if kept.count("`") % 2 else f"{kept}…"


def _task(context: Any, ti: Any) -> list[str | None]:
    state, try_number, tries = _word(_value(ti, "state")), _value(ti, "try_number"), _value(ti, "max_tries")
    if state is None and isinstance(try_number, int) and isinstance(tries, int):
        # The task's process died, so the DAG processor runs the callback and knows only these two numbers.
        state = "up_for_retry" if try_number <= tries else "failed"
    head = _TASK_HEADS.get(state or "", f"ℹ️ *Task {state}*" if state else "ℹ️ *Task*")
    task_id, map_index, dag_id = _value(ti, "task_id"), _value(ti, "map_index"), _code(_value(ti, "dag_id"))
    facts: list[str | None] = [f"DAG {dag_id}" if dag_id else None]
    if isinstance(try_number, int) and try_number > 0:
        facts.append(f"try {try_number} of {tries + 1}" if isinstance(tries, int) else f"try {try_number}")
    facts.append(_attempt(_time_taken, _value(ti, "start_date"), _value(ti, "end_date")))
    return [
        _named(head, f"{task_id}[{map_index}]" if isinstance(map_index, int) and map_index >= 0 else task_id),
        ", ".join(fact for fact in facts if fact),
        _attempt(_error, _value(context, "exception")),
        *_run(context, _value(context, "dag_run"), _value(ti, "run_id")),
        _plain(_attempt(tasks.task_url, ti)),
    ]


def _dag(context: Any) -> list[str | None]:
    dag, dag_run, reason = _value(context, "dag"), _value(context, "dag_run"), _value(context, "reason")
    dag_id = _value(dag, "dag_id") or _value(dag_run, "dag_id")
    run_id = _value(context, "run_id") or _value(dag_run, "run_id")
    state = _word(_value(dag_run, "state"))
    succeeded = "success" in (reason, state)
    failed = not succeeded and (reason is not None or state == "failed")
    head = "✅ *DAG succeeded*" if succeeded else "❌ *DAG failed*" if failed else "ℹ️ *DAG*"
    took = _attempt(_time_taken, _value(dag_run, "start_date"), _value(dag_run, "end_date"))
    return [
        _named(head, dag_id) + (f", {took}" if took else ""),
        _attempt(_failed_tasks, dag, dag_run, dag_id, run_id) if failed else None,
        None if reason is None or reason in _PLAIN_REASONS else _named("Reason", reason),
        *_run(context, dag_run, run_id),
        _plain(_attempt(tasks.run_url, dag_id, run_id)) if dag_id else None,
    ]


def _deadline(context: Any) -> list[str | None]:
    dag_run = _value(context, "dag_run")
    dag_id, run_id = _value(dag_run, "dag_id"), _value(dag_run, "dag_run_id")
    due = _attempt(_moment, _value(_value(context, "deadline"), "deadline_time"))
    state = _word(_value(dag_run, "state"))
    facts = [f"Due {due}" if due else None, f"run state: {state}" if state else None]
    return [
        _named("⏰ *Deadline missed*", dag_id),
        ", ".join(fact for fact in facts if fact),
        *_run(context, dag_run, run_id),
        _plain(_attempt(tasks.run_url, dag_id, run_id)) if dag_id else None,
    ]


def _run(context: Any, dag_run: Any, run_id: Any) -> list[str | None]:
    logical_date = _attempt(_moment, _value(dag_run, "logical_date") or _value(context, "logical_date"))
    return [logical_date and f"Logical date: {logical_date}", _named("Run", run_id) if run_id else None]


def _failed_tasks(dag: Any, dag_run: Any, dag_id: str, run_id: str) -> str | None:
    states = tasks.task_states(dag_run, dag_id, run_id, _value(dag, "task_ids") or ())
    failed = Counter(task_id for task_id, state in states if state == "failed")
    if not failed:
        return None
    of_all = Counter(task_id for task_id, _ in states)
    names = [
        f"{_code(task_id)} ({number} of {of_all[task_id]})" if of_all[task_id] > 1 else _code(task_id)
        for task_id, number in failed.most_common(_MAX_NAMES)
    ]
    more = len(failed) - len(names)
    others = f" and {more} {'other' if more == 1 else 'others'}" if more else ""
    return f"{failed.total()} of {len(states)} tasks failed: {', '.join(names)}{others}"


def _error(exception: Any) -> str | None:
    if exception is None:
        return None
    # Redact before cutting: the masker does not recognise half a secret. Redact twice: a secret can contain line
    # breaks, and terminal codes inside it can hide it.
    lines = masking.redact(plain_text(masking.redact(str(exception)))).strip().splitlines()
    text = lines[0].strip() if lines else ""
    if isinstance(exception, BaseException):
        text = f"{type(exception).__name__}: {text}" if text else type(exception).__name__
    return _code(text if len(text) <= _MAX_ERROR else f"{text[: _MAX_ERROR - 1]}…")


def _named(what: str, name: Any) -> str:
    code = _code(name)
    return f"{what}: {code}" if code else what


def _code(value: Any) -> str:
    # Outside of code, WhatsApp would turn the underscores of a name into italics.
    text = _plain(value)
    return f"`{text}`" if text else ""


def _plain(value: Any) -> str:
    """Return a value as one line that can be sent and does not break the formatting around it."""
    return "" if value is None else " ".join(plain_text(str(value)).split()).replace("`", "'")


def _time_taken(start: Any, end: Any) -> str | None:
    if not isinstance(start, datetime) or not isinstance(end, datetime):
        return None
    seconds = max(0, round((end - start) / timedelta(seconds=1)))
    minutes, hours = seconds // 60, seconds // 3600
    if hours:
        return f"after {hours} h {minutes % 60} min"
    return f"after {minutes} min {seconds % 60} s" if minutes else f"after {seconds} s"


def _moment(value: Any) -> str | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            return _plain(value)
    if not isinstance(value, datetime):
        return None
    return value.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _word(state: Any) -> str | None:
    """Return a state as text, whether it is an enum member or already text."""
    text = getattr(state, "value", state)
    return _plain(text) or None


def _value(source: Any, name: str) -> Any:
    """Return a mapping's value or an object's attribute; ``None`` if that raises anything."""
    try:
        return source[name] if hasattr(source, "keys") else getattr(source, name)
    except Exception:
        return None


def _attempt(find: Any, *arguments: Any) -> Any:
    """Return the result of ``find``, or ``None`` if it fails: the rest of the message must still go out."""
    try:
        return find(*arguments)
    except Exception as error:
        log.debug("Left out of the notification: %s: %s", type(error).__name__, error)
        return None
