"""What the sensors share: how they wait in each mode, and which failures end the waiting."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_wassly.airflow_compat import bases, config, exceptions
from airflow_provider_wassly.operators.base import WasslyTask

if TYPE_CHECKING:
    from airflow_provider_wassly.triggers.base import PollTrigger


#: More than a year nobody waits, and not every database holds every date.
_LONGEST = timedelta(days=365).total_seconds()

#: After the deadline, at which a triggerer wakes the task, Airflow does so if there is none.
_GRACE = timedelta(minutes=1)


class WasslySensor(WasslyTask, bases.BaseSensorOperator):
    """
    A sensor that asks about a Wassly account.

    What may pass (Wassly unavailable, rate limit) is waited for, as what the sensor is there for is.
    What cannot pass (bad input, credentials) ends the waiting at once.

    Deferred, the triggerer only finds out when it is worth to look again. Looking, and all that
    sends, is done by the task on a worker.

    :param instance_id: the WhatsApp Web session; by default the connection's. (templated)
    :param wassly_conn_id: the Airflow connection. (templated)
    :param deferrable: wait in the triggerer and not on a worker; default ``[operators] default_deferrable``.
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
        Return whether the waiting is over, and what the task returns then.

        :raises WasslyError: what cannot pass ends the waiting.
        """
        raise NotImplementedError

    def trigger(self, **waiting: Any) -> PollTrigger:
        """
        Return the trigger that waits until it is worth to look again.

        :param waiting: its arguments that all triggers have.
        """
        raise NotImplementedError

    def poke(self, context: bases.Context) -> Any:
        """Look once."""
        from airflow_provider_wassly.client import WasslyError

        try:
            is_done, value = self.look()
        except WasslyError as error:
            if not error.may_pass:
                # Not its summary: that speaks of a message, and here there is none.
                raise exceptions.fail_exception(f"{error.message}. {error.advice}".rstrip()) from error
            self.log.warning("Looking again later: %s", error)
            return False
        return bases.PokeReturnValue(is_done, value)

    def execute(self, context: bases.Context) -> Any:
        """
        Wait.

        :raises AirflowSensorTimeout: when ``timeout`` is over.
        :raises AirflowFailException: for what cannot pass.
        """
        if not self.deferrable:
            return super().execute(context)
        return self._look_or_defer(context, datetime.now(timezone.utc) + timedelta(seconds=min(self.timeout, _LONGEST)))

    def execute_complete(self, context: bases.Context, event: dict[str, Any]) -> Any:
        """Go on after the triggerer found that it is worth to look again, or that the time is over."""
        self.log.info(event["message"])
        return self._look_or_defer(context, datetime.fromisoformat(event["deadline"]))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: bases.Context) -> Any:
        """Go on after a deferral, also one that no triggerer has ended."""
        if exceptions.has_deferral_timed_out(next_method, next_kwargs):
            self.log.warning("No triggerer has woken this task; is one running?")
            return self._look_or_defer(context, datetime.now(timezone.utc))
        try:
            # Not the base class's: after a deferral it skips for more than it does in the other modes.
            return super(bases.BaseSensorOperator, self).resume_execution(next_method, next_kwargs, context)
        except exceptions.deferral_error() as error:
            # With silent_fail too: nothing is there to wait with.
            if self.never_fail:
                raise exceptions.skip_exception(f"{error} (skipped because of never_fail)") from error
            raise

    def _look_or_defer(self, context: bases.Context, deadline: datetime) -> Any:
        found = self._look_as_in_other_modes(context)
        if found:
            return found.xcom_value
        left = deadline - datetime.now(timezone.utc)
        if left <= timedelta(0):
            message = f"Sensor has timed out; it was told to wait {self.timeout:g} seconds"
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
        """Poke, with what Airflow's own ``execute`` makes of each exception."""
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
                self.log.exception("Looking failed. Waiting on because of silent_fail")
                return False
            if self.never_fail:
                raise exceptions.skip_exception(f"{error} (skipped because of never_fail)") from error
            raise
