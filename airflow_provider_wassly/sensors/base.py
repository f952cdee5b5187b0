"""The base of the sensors: how they wait in each mode, and which errors end the wait."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_wassly.airflow_compat import bases, config, exceptions
from airflow_provider_wassly.operators.base import WasslyTask

if TYPE_CHECKING:
    from airflow_provider_wassly.triggers.base import PollTrigger


#: Nobody waits for more than a year, and some databases cannot store dates too far ahead.
_LONGEST = timedelta(days=365).total_seconds()

#: The triggerer wakes the task at the deadline. If none is running, Airflow does so this much later.
_GRACE = timedelta(minutes=1)


class WasslySensor(WasslyTask, bases.BaseSensorOperator):
    """
    The base of the sensors that check a Wassly account. A subclass implements ``look`` and ``trigger``.

    .. code-block:: python

        class AnyDeviceSensor(WasslySensor):
            def look(self):
                devices = self.hook.list_devices()
                return any(device.is_connected for device in devices), None

    Temporary errors (Wassly unavailable, rate limit) do not end the wait. Errors that cannot pass (bad input, wrong
    credentials) fail the task at once.

    In deferrable mode the triggerer only finds out when the task should check again. The check itself, and any sending,
    is done by the task on a worker.

    :param instance_id: the WhatsApp Web session. Default: the connection's. (templated)
    :param wassly_conn_id: the Airflow connection. Default: ``wassly_default``. (templated)
    :param deferrable: wait in the triggerer, without a worker slot. Default: ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("instance_id", "wassly_conn_id")
    ui_color = "#d3f5df"

    def __init__(
        self,
        *,
        instance_id: str | None = None,
        wassly_conn_id: str = "wassly_default",
        deferrable: bool = config.default_deferrable(),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.instance_id = instance_id
        self.wassly_conn_id = wassly_conn_id
        self.deferrable = deferrable

    def look(self) -> tuple[bool, Any]:
        """
        Check once; return whether the wait is over, and the task's return value if it is.

        :raises WasslyError: when the check fails; the wait ends unless the error may pass.
        """
        raise NotImplementedError

    def trigger(self, **waiting: Any) -> PollTrigger:
        """
        Return the trigger that waits until the task should check again.

        :param waiting: the arguments that all triggers take.
        """
        raise NotImplementedError

    def poke(self, context: bases.Context) -> Any:
        """Check once."""
        from airflow_provider_wassly.client import WasslyError

        try:
            is_done, value = self.look()
        except WasslyError as error:
            if not error.may_pass:
                # Not the error's summary: it mentions a message, and a sensor has none.
                raise exceptions.fail_exception(f"{error.message}. {error.advice}".rstrip()) from error
            self.log.warning("Checking again later: %s", error)
            return False
        return bases.PokeReturnValue(is_done, value)

    def execute(self, context: bases.Context) -> Any:
        """
        Wait.

        :raises AirflowSensorTimeout: after ``timeout``.
        :raises AirflowFailException: for an error that cannot pass.
        """
        if not self.deferrable:
            return super().execute(context)
        return self._look_or_defer(context, datetime.now(timezone.utc) + timedelta(seconds=min(self.timeout, _LONGEST)))

    def execute_complete(self, context: bases.Context, event: dict[str, Any]) -> Any:
        """Resume after the trigger fired: the task should check again, or the timeout is reached."""
        self.log.info(event["message"])
        return self._look_or_defer(context, datetime.fromisoformat(event["deadline"]))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: bases.Context) -> Any:
        """Resume after a deferral, including one that no triggerer ended."""
        if exceptions.has_deferral_timed_out(next_method, next_kwargs):
            self.log.warning("No triggerer woke this task; is one running?")
            return self._look_or_defer(context, datetime.now(timezone.utc))
        try:
            # Not BaseSensorOperator's: after a deferral it skips on more errors than in the other modes.
            return super(bases.BaseSensorOperator, self).resume_execution(next_method, next_kwargs, context)
        except exceptions.deferral_error() as error:
            # Even with silent_fail: without a trigger there is no way to wait.
            if self.never_fail:
                raise exceptions.skip_exception(f"{error} (skipped because of never_fail)") from error
            raise

    def _look_or_defer(self, context: bases.Context, deadline: datetime) -> Any:
        found = self._look_as_in_other_modes(context)
        if found:
            return found.xcom_value
        left = deadline - datetime.now(timezone.utc)
        if left <= timedelta(0):
            message = f"Sensor has timed out after {self.timeout:g} seconds"
            raise (exceptions.skip_exception if self.soft_fail else exceptions.sensor_timeout)(message)
        self.defer(
            trigger=self.trigger(
                wassly_conn_id=self.wassly_conn_id,
                deadline=deadline.isoformat(),
                poke_interval=self.poke_interval,
                exponential_backoff=bool(self.exponential_backoff),
                max_wait=self.max_wait.total_seconds() if self.max_wait else None,
            ),
            method_name="execute_complete",
            timeout=left + _GRACE,
        )

    def _look_as_in_other_modes(self, context: bases.Context) -> Any:
        """Poke, and treat each exception as Airflow's own ``execute`` does."""
        try:
            return self.poke(context)
        except exceptions.what_ends_a_sensor() as error:
            if self.soft_fail or self.never_fail:
                raise exceptions.skip_exception(f"{error} (skipped because of soft_fail or never_fail)") from error
            raise
        except type(exceptions.skip_exception("")):
            raise
        except Exception as error:
            if self.silent_fail:
                self.log.exception("Check failed; still waiting because of silent_fail")
                return False
            if self.never_fail:
                raise exceptions.skip_exception(f"{error} (skipped because of never_fail)") from error
            raise
