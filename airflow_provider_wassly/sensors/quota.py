"""The sensor that waits for quota."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_wassly.airflow_compat import exceptions
from airflow_provider_wassly.sensors.base import WasslySensor

if TYPE_CHECKING:
    from airflow_provider_wassly.client import OutgoingMessage
    from airflow_provider_wassly.quota import QuotaReading, Verdict
    from airflow_provider_wassly.triggers.quota import QuotaTrigger


class WasslyQuotaSensor(WasslySensor):
    """
    Waits until enough conversations remain.

    No endpoint of Wassly tells the remaining quota; only the answer to a message does. So this looks
    at the reading that the last message of the connection left. Where that is too old or too low, a
    **probe** can find out: one small message to a number of yours.

    Returns the reading, ``{"remaining_conversations": …, "read_at": …, "instance_id": …}``; ``None`` if there is none.

    :param min_remaining_conversations: how many conversations must remain.
    :param max_age: how old a reading may be to be trusted; a timedelta or seconds, default 36 hours.
    :param probe_to: the number that probes go to; without it no probe is sent. (templated)
    :param probe_message: the text of a probe. (templated)
    :param probe_interval: the time between two probes of this connection, however many sensors and tries there
        are; a timedelta or seconds, default 1 hour.
    :param on_unknown: what happens without any reading and without ``probe_to``: ``proceed`` (the send itself will
        tell), ``wait`` until something is sent, or ``fail``.
    :param instance_id: the WhatsApp Web session that sends probes; by default the connection's. (templated)
    :param wassly_conn_id: the Airflow connection. (templated)
    :param deferrable: wait in the triggerer and not on a worker; default ``[operators] default_deferrable``.
    :raises ValueError: when the DAG is parsed and a value is wrong.
    """

    template_fields: Sequence[str] = ("probe_to", "probe_message", *WasslySensor.template_fields)

    def __init__(
        self,
        *,
        min_remaining_conversations: int,
        max_age: timedelta | float = timedelta(hours=36),
        probe_to: str | None = None,
        probe_message: str = "Airflow checks the remaining quota.",
        probe_interval: timedelta | float = timedelta(hours=1),
        on_unknown: Literal["proceed", "wait", "fail"] = "proceed",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (
            isinstance(min_remaining_conversations, bool)
            or not isinstance(min_remaining_conversations, int)
            or min_remaining_conversations < 1
        ):
            raise ValueError(
                f"min_remaining_conversations must be a whole number above 0, not {min_remaining_conversations!r}"
            )
        if on_unknown not in ("proceed", "wait", "fail"):
            raise ValueError(f"on_unknown must be 'proceed', 'wait' or 'fail', not {on_unknown!r}")
        self.min_remaining_conversations = min_remaining_conversations
        self.max_age = _duration(max_age, "max_age")
        self.probe_to = probe_to
        self.probe_message = probe_message
        self.probe_interval = _duration(probe_interval, "probe_interval")
        self.on_unknown = on_unknown

    def look(self) -> tuple[bool, dict[str, Any] | None]:
        """Look at the reading; send a probe if only that can tell and one is due."""
        from airflow_provider_wassly.client import WasslyConfigError
        from airflow_provider_wassly.quota import Verdict

        if not self.hook.settings.record_quota:
            raise WasslyConfigError(
                f"Connection {self.wassly_conn_id!r}, field record_quota: is false, so there is no reading to wait for"
            )
        # At every look: a probe that cannot be sent must not show only when the quota is low.
        probe = None if self.probe_to is None else self._prepare(self.probe_to)
        reading = self.hook.get_quota()
        verdict = self._judge(reading, probing=probe is not None)
        if verdict is Verdict.PROBE and probe is not None and (found := self._found_by(probe)):
            reading = found
            verdict = self._judge(reading, probing=False)
        if verdict is Verdict.FAIL:
            raise exceptions.fail_exception(
                "There is no quota reading yet (on_unknown='fail'); probe_to can find it out"
            )
        return verdict is Verdict.ENOUGH, None if reading is None else reading.as_dict()

    def trigger(self, **waiting: Any) -> QuotaTrigger:
        """Return the trigger that looks at the reading."""
        from airflow_provider_wassly.triggers.quota import QuotaTrigger

        return QuotaTrigger(
            needed=self.min_remaining_conversations,
            max_age=self.max_age.total_seconds(),
            probe_interval=None if self.probe_to is None else self.probe_interval.total_seconds(),
            on_unknown=self.on_unknown,
            **waiting,
        )

    def _judge(self, reading: QuotaReading | None, *, probing: bool) -> Verdict:
        from airflow_provider_wassly.quota import judge

        verdict, text, level = judge(
            reading,
            needed=self.min_remaining_conversations,
            max_age=self.max_age,
            probing=probing,
            on_unknown=self.on_unknown,
        )
        self.log.log(level, text)
        return verdict

    def _prepare(self, number: str) -> OutgoingMessage:
        from airflow_provider_wassly.client import MessageParameters, WasslyInvalidMessage

        try:
            return self.hook.prepare(MessageParameters(number, self.probe_message, instance_id=self.instance_id))
        except WasslyInvalidMessage as error:
            names = {"contact_mobile_number": "probe_to", "message": "probe_message"}
            reason = error.message.removeprefix(f"{error.field}: ")
            raise WasslyInvalidMessage(reason, field=names.get(error.field, error.field)) from None

    def _found_by(self, probe: OutgoingMessage) -> QuotaReading | None:
        """
        Send a probe, if none was sent lately; return what its answer said, ``None`` if that was nothing.

        Not what is recorded then: where the answer holds no figure, or could not be recorded, that is the old reading.
        """
        from airflow_provider_wassly.client import WasslyError, WasslyOutcomeUnknown
        from airflow_provider_wassly.quota import Probes, QuotaReading, reading

        if not Probes(self.wassly_conn_id).claim(self.probe_interval):
            self.log.info("Waiting: another probe was claimed less than %s ago", self.probe_interval)
            return None
        try:
            receipt = self.hook.send(probe)
        except WasslyError as error:
            if not (error.may_pass or isinstance(error, WasslyOutcomeUnknown)):
                raise
            why = error.summary
        else:
            if receipt.remaining_conversations is not None:
                return QuotaReading(receipt.remaining_conversations, reading.now(), probe.instance_id)
            why = "Wassly's answer does not say how many conversations remain."
        self.log.warning("The probe returned no quota reading: %s The next one is due in %s", why, self.probe_interval)
        return None


def _duration(value: timedelta | float, name: str) -> timedelta:
    if isinstance(value, timedelta):
        duration = value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            duration = timedelta(seconds=value)
        except (ValueError, OverflowError):
            raise ValueError(f"{name} must be a number of seconds that a timedelta can hold, not {value!r}") from None
    else:
        raise ValueError(f"{name} must be a timedelta or a number of seconds, not {value!r}")
    if duration <= timedelta(0):
        raise ValueError(f"{name} must be longer than 0, not {value!r}")
    return duration
