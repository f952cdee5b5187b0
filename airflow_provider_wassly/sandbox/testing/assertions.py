"""The implementation of :meth:`Sandbox.assert_sent`: finds the expected message, or explains why there is none."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from airflow_provider_wassly.sandbox.service.models import Call, Message, SandboxDevice
from airflow_provider_wassly.sandbox.testing.comparing import in_bytes, preview
from airflow_provider_wassly.sandbox.testing.expectations import Expectation, File, Match, Text, Value

ExpectedText = str | re.Pattern[str]
ExpectedFile = str | bytes | Path

MAX_LISTED = 40
MAX_MESSAGES = 5
MAX_CLOSEST = 2

_BETWEEN_DIGITS = {"Zs", "Pd", "Cf", "Ps", "Pe"}  # spaces, dashes, zero-width marks, brackets


class Received(Protocol):
    """The part of the sandbox that the assertions need."""

    @property
    def messages(self) -> list[Message]:
        """The accepted messages."""
        ...

    @property
    def calls(self) -> list[Call]:
        """The API calls."""
        ...

    @property
    def devices(self) -> list[SandboxDevice]:
        """The account's devices."""
        ...

    @property
    def conversations(self) -> int:
        """How many conversations remain."""
        ...


def the_one_sent(
    box: Received,
    *,
    to: str | None,
    text: ExpectedText | None,
    document: ExpectedFile | None,
    media: ExpectedFile | None,
    contact_name: str | None,
    instance_id: str | None,
) -> Message:
    """
    Return the one message that matches. The parameters are those of :meth:`Sandbox.assert_sent`.

    :raises AssertionError: when no message matches, or more than one does.
    :raises TypeError: when a parameter has the wrong type; the text names it.
    :raises ValueError: when a parameter's value can never match.
    """
    __tracebackhide__ = True
    expectations: list[Expectation] = []
    if to is not None:
        expectations.append(Value("to", "contact_mobile_number", _as_sent_number(to)))
    if isinstance(text, re.Pattern) and isinstance(text.pattern, str):
        expectations.append(Match("text", text))
    elif text is not None:
        expectations.append(Text("text", "message", _checked("text", text, "a str or a compiled pattern of str")))
    for name, file in {"document": document, "media": media}.items():
        if file is not None:
            expectations.append(File.of(name, file))
    for name, value in {"contact_name": contact_name, "instance_id": instance_id}.items():
        if value is not None:
            expectations.append(Value(name, name, _checked(name, value, "a str")))
    messages = box.messages
    matching = [message for message in messages if all(wanted.is_met(message) for wanted in expectations)]
    if len(matching) == 1:
        return matching[0]
    raise AssertionError("\n".join(_explain(box, expectations, messages, matching)))


def _checked(name: str, value: Any, what: str) -> str:
    __tracebackhide__ = True
    if not isinstance(value, str):
        raise TypeError(f"{name} must be {what}, not {type(value).__name__}")
    return value


def _as_sent_number(written: Any) -> str:
    """Return a number as the service receives it: ``+`` and digits."""
    __tracebackhide__ = True
    text = _checked("to", written, "a str")
    digits = ""
    for char in text:
        if (digit := unicodedata.decimal(char, None)) is not None:
            digits += str(digit)
        elif unicodedata.category(char) not in _BETWEEN_DIGITS and char not in "./\t\u2212":
            digits += "+" if char == "\uff0b" else char
    found = re.fullmatch(r"(?:\+|00)([1-9][0-9]{7,14})", digits)
    if not found:
        raise ValueError(f"to must be a number that starts with + or 00 and the country code, not {text!r}")
    return f"+{found[1]}"


def _explain(
    box: Received, expectations: list[Expectation], messages: list[Message], matching: list[Message]
) -> Iterator[str]:
    if not messages:
        yield "no message was sent, expected one"
    elif matching:
        what = "match" if expectations else "were sent"
        yield f"{len(matching):,} messages {what}, expected one"
    else:
        one = "1 message was sent, not the expected one"
        yield one if len(messages) == 1 else f"{len(messages):,} messages were sent, none as expected"
    if expectations:
        yield ""
        yield "expected"
        for wanted in expectations:
            yield f"  {wanted.name:12}  {wanted.expected}"
    positions = {message.id: position for position, message in enumerate(messages, start=1)}
    if matching:
        yield ""
        yield "matching messages" if expectations else "sent"
        yield from _list(matching, positions)
    elif messages:
        closest = _closest(expectations, messages)
        for message in closest:
            yield ""
            yield f"closest: message {positions[message.id]} of {len(messages)}"
            yield from _compare(expectations, message)
        if others := [message for message in messages if message not in closest]:
            yield ""
            yield "the other message" if len(others) == 1 else "the other messages"
            yield from _list(others, positions)
    if not matching and (causes := _possible_causes(box, bool(messages))):
        yield ""
        yield "possible causes"
        yield from (f"  {line}" for line in causes)


def _closest(expectations: list[Expectation], messages: list[Message]) -> list[Message]:
    """Choose the messages that meet the most expectations, the most similar ones first."""
    met = {message.id: sum(wanted.is_met(message) for wanted in expectations) for message in messages}
    most = max(met.values())
    # If there are very many, the newest will do.
    nearest = [message for message in messages if met[message.id] == most][-200:]

    def likeness(message: Message) -> float:
        return sum(wanted.likeness(message) for wanted in expectations if not wanted.is_met(message))

    nearest.sort(key=likeness, reverse=True)
    return nearest[: MAX_CLOSEST if most else 1]


def _compare(expectations: list[Expectation], message: Message) -> Iterator[str]:
    for wanted in expectations:
        if wanted.is_met(message):
            yield f"  {wanted.name:12}  ok       {wanted.sent(message)}"
            continue
        first, *more = wanted.difference(message)
        yield f"  {wanted.name:12}  differs  {first}"
        for line in more:
            yield line.rstrip() if line.startswith("    ") else f"  {'':12}           {line}"


def _list(messages: Sequence[Message], positions: dict[int, int]) -> Iterator[str]:
    for message in messages[:MAX_MESSAGES]:
        parts = [f"  {positions[message.id]:2}  {message.contact_mobile_number}"]
        if message.message is not None:
            more = "…" if len(message.message) > MAX_LISTED else ""
            parts.append(f"{message.message[:MAX_LISTED]!r}{more}")
        for file in (message.document, message.media):
            if file is not None:
                parts.append(f"{file.field} {preview(file.name)}, {in_bytes(file.size)}")
        yield "  ".join(parts)
    if len(messages) > MAX_MESSAGES:
        yield f"  … and {len(messages) - MAX_MESSAGES:,} more"


def _possible_causes(box: Received, any_message: bool) -> list[str]:
    """List the failed calls, and states of the sandbox that make calls fail."""
    calls = box.calls
    if not calls and not any_message:
        return ["nothing called the sandbox: did the task run, and does its connection point to the sandbox?"]
    counted = Counter(
        (call.endpoint, outcome) for call in calls if (outcome := _outcome(call, any_message)) is not None
    )
    lines = [
        f"{number:,} {'call' if number == 1 else 'calls'} to {endpoint} {outcome}"
        for (endpoint, outcome), number in counted.items()
    ]
    if not any_message and not any(call.endpoint == "send" for call in calls):
        lines.append("send was not called")
    if not box.conversations:
        lines.append("no conversations remain")
    lines += [f"device {device.instance_id} is {device.status}" for device in box.devices if not device.connected]
    return lines


def _outcome(call: Call, any_message: bool) -> str | None:
    """Describe how a call failed; ``None`` if it did not."""
    fault = f" (fault {call.fault})" if call.fault else ""
    if call.status is None:
        return f"{'still running' if call.finished_at is None else 'got no answer'}{fault}"
    if call.status == 200 and not fault:
        # With no message accepted, the answer to send must have been a refusal.
        return "got status 200 with success: false" if call.endpoint == "send" and not any_message else None
    return f"got status {call.status}{fault}"
