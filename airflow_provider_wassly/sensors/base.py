"""What the sensors share: how they wait in each mode, and which failures end the waiting."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_wassly import _compat
from airflow_provider_wassly._task import WasslyTask

if TYPE_CHECKING:
    from airflow_provider_wassly.triggers.base import PollTrigger


class WasslySensor(WasslyTask, _compat.BaseSensorOperator):
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
        deferrable: bool = _compat.default_deferrable(),
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

    def poke(self, context: _compat.Context) -> Any:
        """Look once."""
        from airflow_provider_wassly.client import WasslyError

        try:
            is_done, value = self.look()
        except WasslyError as error:
            if not error.may_pass:
                # Not its summary: that speaks of a message, and here there is none.
                raise _compat.fail_exception(f"{error.message}. {error.advice}") from error
            self.log.warning("Not known at the moment: %s. Looking again later", error)
            return False
        return _compat.PokeReturnValue(is_done, value)

    def execute(self, context: _compat.Context) -> Any:
        """
        Wait.

        :raises AirflowSensorTimeout: when ``timeout`` is over.
        :raises AirflowFailException: for what cannot pass.
        """
        if not self.deferrable:
            return super().execute(context)
        return self._look_or_defer(context, datetime.now(timezone.utc) + timedelta(seconds=self.timeout))

    def execute_complete(self, context: _compat.Context, event: dict[str, Any]) -> Any:
        """Go on after the triggerer found that it is worth to look again, or that the time is over."""
        self.log.info(event["message"])
        return self._look_or_defer(context, datetime.fromisoformat(event["deadline"]))

    def _look_or_defer(self, context: _compat.Context, deadline: datetime) -> Any:
        try:
            found = self.poke(context)
        except Exception as error:
            self._end_without_success(error)
        if found:
            return found.xcom_value
        if datetime.now(timezone.utc) >= deadline:
            self._end_without_success(
                _compat.sensor_timeout(f"Sensor has timed out; it was told to wait {self.timeout:g} seconds")
            )
        self.defer(
            trigger=self.trigger(
                wassly_conn_id=self.wassly_conn_id,
                deadline=deadline.isoformat(),
                poke_interval=self.poke_interval,
                exponential_backoff=bool(self.exponential_backoff),
                max_wait=self.max_wait.total_seconds() if self.max_wait else None,
            ),
            method_name="execute_complete",
        )

    def _end_without_success(self, error: Exception) -> NoReturn:
        # Airflow does so by itself for what a poke raises, but not on every version after a deferral.
        if self.soft_fail or self.never_fail:
            raise _compat.skip_exception(f"{error} (skipped because of soft_fail or never_fail)") from error
        raise error
