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

    .. code-block:: python

        WasslyQuotaSensor(
            task_id="wait_for_quota",
            min_remaining_conversations=200,
            deferrable=True,
            timeout=timedelta(hours=24),
        )

    Wassly has no quota endpoint; the remaining quota comes only with the reply to a message. So the sensor checks the
    reading that the connection's last message left. If that is too old or too low, a **probe** can get a new one: a
    short message to a number of your own, which costs a conversation.

    Returns the reading, ``{"remaining_conversations": …, "read_at": …, "instance_id": …}``, or ``None`` without one.

    :param min_remaining_conversations: how many conversations must remain; required, at least 1.
    :param max_age: the age up to which a reading is trusted, as a timedelta or in seconds. Default: 36 hours.
    :param probe_to: the number to send probes to. Default: none, which means no probes. (templated)
    :param probe_message: the text of a probe. Default: ``Airflow checks the remaining quota.`` (templated)
    :param probe_interval: the shortest time between two probes of this connection, counted over all sensors and
        attempts, as a timedelta or in seconds. Default: 1 hour.
    :param on_unknown: what to do if there is no reading and no ``probe_to``: ``proceed`` (default; the next send will
        show the quota), ``wait`` until a message leaves a reading, or ``fail``.
    :param instance_id: the WhatsApp Web session that sends probes. Default: the connection's. (templated)
    :param wassly_conn_id: the Airflow connection. Default: ``wassly_default``. (templated)
    :param deferrable: wait in the triggerer, without a worker slot. Default: ``[operators] default_deferrable``.
    :param kwargs: the arguments of any sensor, such as ``timeout``, ``poke_interval`` and ``mode``.
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
                f"min_remaining_conversations must be a positive integer, not {min_remaining_conversations!r}"
            )
        if on_unknown not in ("proceed", "wait", "fail"):
            raise ValueError(f"on_unknown must be 'proceed', 'wait' or 'fail', not {on_unknown!r}")
        self.min_remaining_conversations = min_remaining_conversations
        self.max_age = _as_timedelta(max_age, "max_age")
        self.probe_to = probe_to
        self.probe_message = probe_message
        self.probe_interval = _as_timedelta(probe_interval, "probe_interval")
        self.on_unknown = on_unknown

    def look(self) -> tuple[bool, dict[str, Any] | None]:
        """Check the reading; send a probe if one is needed and due."""
        from airflow_provider_wassly.client import WasslyConfigError
        from airflow_provider_wassly.quota import Verdict

        if not self.hook.settings.record_quota:
            raise WasslyConfigError(
                f"Connection {self.wassly_conn_id!r}, field record_quota: false, so there is no reading to wait for"
            )
        # At every check: a wrong probe_to must fail at once, not only when the quota is low.
        probe = None if self.probe_to is None else self._prepare(self.probe_to)
        reading = self.hook.get_quota()
        verdict = self._judge(reading, probing=probe is not None)
        if verdict is Verdict.PROBE and probe is not None and (found := self._found_by(probe)):
            reading = found
            verdict = self._judge(reading, probing=False)
        if verdict is Verdict.FAIL:
            raise exceptions.fail_exception(
                "No quota reading yet (on_unknown='fail'); set probe_to to get one with a probe"
            )
        return verdict is Verdict.ENOUGH, None if reading is None else reading.as_dict()

    def trigger(self, **waiting: Any) -> QuotaTrigger:
        """Return the trigger that checks the reading."""
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
        Send a probe if one is due; return the reading from its reply, or ``None`` without one.

        The stored reading would not do: it is still the old one if the reply has no figure or could not be stored.
        """
        from airflow_provider_wassly.client import WasslyError, WasslyOutcomeUnknown
        from airflow_provider_wassly.quota import Probes, QuotaReading, reading

        if not Probes(self.wassly_conn_id).claim(self.probe_interval):
            self.log.info("Not probing: another probe was claimed less than %s ago", self.probe_interval)
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
            why = "Wassly's reply does not say how many conversations remain."
        self.log.warning("The probe returned no quota reading: %s Next probe in %s", why, self.probe_interval)
        return None


def _as_timedelta(value: timedelta | float, name: str) -> timedelta:
    if isinstance(value, timedelta):
        duration = value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            duration = timedelta(seconds=value)
        except (ValueError, OverflowError):
            raise ValueError(f"{name} must be a number of seconds that fits in a timedelta, not {value!r}") from None
    else:
        raise ValueError(f"{name} must be a timedelta or a number of seconds, not {value!r}")
    if duration <= timedelta(0):
        raise ValueError(f"{name} must be greater than 0, not {value!r}")
    return duration
