"""The client: the three documented endpoints of the Wassly API."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import tenacity

from airflow_provider_wassly.client._answers import read_devices, read_receipt, read_token
from airflow_provider_wassly.client._arguments import (
    DEFAULT_BASE_URL,
    DEVICES,
    LOGIN,
    SEND,
    check_base_url,
    check_credentials,
    check_recipients,
    check_seconds,
    is_loopback,
    suspicions,
    without_endpoint,
)
from airflow_provider_wassly.client._devices import DeviceStates
from airflow_provider_wassly.client.attachments import Attachment
from airflow_provider_wassly.client.clock import SYSTEM, Clock
from airflow_provider_wassly.client.errors import (
    WasslyAuthError,
    WasslyConfigError,
    WasslyDeviceDisconnected,
    WasslyError,
    WasslyInstanceUnknown,
    WasslyRateLimited,
    WasslyRejected,
    WasslyUnavailable,
)
from airflow_provider_wassly.client.messages import MessageParameters, OutgoingMessage, prepare
from airflow_provider_wassly.client.models import Device, SendReceipt
from airflow_provider_wassly.client.numbers import check_region, shorten
from airflow_provider_wassly.client.observer import SendObserver
from airflow_provider_wassly.client.transport.auth import StoredToken, Tokens, bare_token, nothing_stored
from airflow_provider_wassly.client.transport.exchange import StaleConnection, Transport
from airflow_provider_wassly.client.transport.multipart import SendBody
from airflow_provider_wassly.client.transport.network import check_bundle, check_proxies, proxy_password
from airflow_provider_wassly.client.transport.redaction import Redactor

log = logging.getLogger(__name__)

__all__ = ["DEFAULT_BASE_URL", "WasslyClient"]

T = TypeVar("T")

#: Seconds between two attempts when Wassly sends no ``Retry-After``.
_BACKOFF = tenacity.wait_exponential_jitter(initial=1, max=10)

#: How many warnings about doubtful numbers are logged one by one.
_MAX_WARNINGS = 20


class WasslyClient:
    """
    A client for the Wassly API, safe to use from many threads.

    .. code-block:: python

        with WasslyClient(apikey="…", email="me@example.com", password="…") as client:
            receipt = client.send_message("+491701234567", "Hello", instance_id="14wdfwef-da6f-…")
            print(receipt.remaining_conversations)

    Clients in one process with the same credentials share a fetched token.

    :param apikey: the account's API key.
    :param base_url: Wassly's address. Plain http is refused except for a loopback host or with ``allow_http``. A
        trailing ``/api`` is dropped, because each call adds its own.
    :param token: a bearer token, with or without ``Bearer`` in front; used first. Optional with ``email`` and
        ``password``.
    :param email: with ``password``, used to fetch a token when there is none or Wassly rejects it.
    :param password: see ``email``.
    :param connect_timeout: seconds to wait for a connection.
    :param read_timeout: seconds to wait for the next bytes of the answer, or for Wassly to take the next bytes of an
        upload. The whole answer, including interim ones, may take twice as long.
    :param verify: whether to verify TLS certificates, or the path of a CA bundle.
    :param proxies: proxies as in requests. Default: the environment's, except for a loopback host.
    :param allow_http: accept a plain http ``base_url`` to another machine.
    :param default_region: two-letter country code for numbers without a country code. Default: they are refused.
    :param allowed_recipients: the only numbers that can be sent to. Default: every number.
    :param max_attempts: how many times to try a call in total when Wassly did not process it and another attempt may
        help. One more if the last attempt failed only because a kept-alive connection had been closed.
    :param max_retry_after: the longest ``Retry-After``, in seconds, to wait for; a longer one is an error at once.
    :param pool_maxsize: how many connections to keep open: one for each thread that calls at the same time.
    :param name: what log lines and errors call this account; the hook passes the connection's name.
    :param on_new_token: called with each token from ``stored_token`` or a login, before its first use, in the thread
        that got it.
    :param stored_token: returns the token that another process has fetched with the same credentials, or ``None``; must
        not raise. Called now, and later before each login.
    :param clock: waits between two attempts; a test can pass one that does not wait.
    :raises WasslyConfigError: names the argument that is missing or wrong.
    """

    def __init__(
        self,
        *,
        apikey: str,
        base_url: str = DEFAULT_BASE_URL,
        token: str | None = None,
        email: str | None = None,
        password: str | None = None,
        connect_timeout: float = 10.0,
        read_timeout: float = 60.0,
        verify: bool | str = True,
        proxies: Mapping[str, str] | None = None,
        allow_http: bool = False,
        default_region: str | None = None,
        allowed_recipients: Collection[str] | None = None,
        max_attempts: int = 3,
        max_retry_after: float = 60.0,
        pool_maxsize: int = 10,
        name: str | None = None,
        on_new_token: Callable[[str], None] | None = None,
        stored_token: StoredToken | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._name = name or "the connection"
        self._named = f" ({name})" if name else ""
        token = bare_token(token) if token else None
        check_credentials(apikey, token, email, password)
        host = check_base_url(base_url, allow_http)
        use_environment = not is_loopback(host)
        check_seconds(connect_timeout=connect_timeout, read_timeout=read_timeout)
        check_bundle(verify, use_environment and urlsplit(base_url).scheme == "https")
        if verify is False:
            log.warning("Not verifying TLS certificates of %s (verify is false in %s)", host, self._name)
        self.base_url = without_endpoint(base_url)
        self.default_region = check_region(default_region) if default_region else None
        self.allowed_recipients = check_recipients(allowed_recipients, self.default_region)
        self._email = email
        self._password = password
        given_proxies = {key: url.strip() for key, url in (proxies or {}).items()}
        self._max_attempts = max_attempts
        self._max_retry_after = max_retry_after
        self._on_new_token = on_new_token
        self._stored_token = stored_token
        self.clock = clock
        self._device_states = DeviceStates(self._list_devices_once, clock)
        self._suspicions = suspicions(apikey, token, password)
        self._tokens = Tokens.of_account(self.base_url, apikey, email, password, token)
        self._redactor = Redactor(apikey, token, password)
        for proxy in check_proxies(self.base_url, given_proxies, use_environment):
            password_in_url = proxy_password(proxy)
            self._redactor.add(password_in_url)
            self._redactor.add(unquote(password_in_url))
        #: Counts the warnings about doubtful numbers.
        self._warnings = itertools.count(1)
        self._transport = Transport(
            base_url=self.base_url,
            apikey=apikey,
            timeouts=(connect_timeout, read_timeout),
            verify=verify,
            proxies=given_proxies,
            use_environment=use_environment,
            pool_maxsize=pool_maxsize,
            redactor=self._redactor,
        )
        if stored_token is not None:
            # Now, because later calls may come from threads that cannot reach the store.
            self._tokens.find(self._find_token)

    def __enter__(self) -> WasslyClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r})"

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def login(self) -> None:
        """
        Fetch a new token with email and password, for all later calls.

        There is no need to call this first: every call logs in when it has to.

        :raises WasslyAuthError: when email and password are missing, or Wassly does not accept them.
        :raises WasslyRejected: on any other 4xx, or when the address is not Wassly's.
        :raises WasslyRateLimited: on 429.
        :raises WasslyUnavailable: when Wassly cannot be reached, or its answer is not the documented JSON.
        """
        if not self._can_login:
            raise WasslyAuthError(f"login and password are not set{self._named}")
        self._repeating(lambda: self._tokens.renew(self._tokens.token, self._fetch_token))

    def forget_token(self) -> None:
        """Forget the token of the last login, in all clients of this process with the same credentials."""
        self._tokens.forget()

    def list_devices(self) -> list[Device]:
        """
        Return the account's WhatsApp Web sessions.

        :raises WasslyAuthError: when Wassly does not accept the credentials.
        :raises WasslyRejected: on any other 4xx.
        :raises WasslyRateLimited: on 429.
        :raises WasslyUnavailable: when Wassly cannot be reached, or its answer is not the documented JSON.
        """
        return self._repeating(self._list_devices_once)

    def prepare(self, parameters: MessageParameters) -> OutgoingMessage:
        """
        Check a message without making a call.

        :param parameters: the message as it was asked for.
        :return: the message, ready for :meth:`send`.
        :raises WasslyInvalidMessage: names the parameter that is wrong.
        """
        return prepare(parameters, default_region=self.default_region, allowed_recipients=self.allowed_recipients)

    def send_message(
        self,
        contact_mobile_number: str,
        message: str | None = None,
        *,
        instance_id: str,
        contact_name: str | None = None,
        document: Attachment | str | os.PathLike[str] | None = None,
        document_name: str | None = None,
        document_content_type: str | None = None,
        media: Attachment | str | os.PathLike[str] | None = None,
        media_name: str | None = None,
        media_content_type: str | None = None,
    ) -> SendReceipt:
        """
        Send one message.

        A failed send is repeated only if Wassly definitely did not accept the message and another attempt may help; see
        ``max_attempts``. The parameters are those of :class:`MessageParameters`, and an ``instance_id`` is required.

        :return: what Wassly answered.
        :raises WasslyInvalidMessage: before any call, when the message cannot be sent as it is.
        :raises WasslyError: on any other failure; its ``accepted`` says what is known about the message.
        """
        return self.send(
            self.prepare(
                MessageParameters(
                    contact_mobile_number=contact_mobile_number,
                    message=message,
                    contact_name=contact_name,
                    document=document,
                    document_name=document_name,
                    document_content_type=document_content_type,
                    media=media,
                    media_name=media_name,
                    media_content_type=media_content_type,
                    instance_id=instance_id,
                )
            )
        )

    def send(
        self,
        message: OutgoingMessage,
        *,
        observer: SendObserver | None = None,
    ) -> SendReceipt:
        """
        Send a message that :meth:`prepare` returned.

        :param message: the prepared message.
        :param observer: notified of what becomes of the message, as soon as it is known.
        :return: what Wassly answered.
        :raises WasslyError: as :meth:`send_message` does.
        """
        watched = observer or SendObserver()
        if message.warning:
            self._warn(message.warning)
        try:
            receipt = self._repeating(lambda: self._send_once(message, watched))
        except WasslyRejected as rejection:
            raise self._with_device_state(rejection, message.instance_id) from None
        if message.files and receipt.message_type == "text":
            log.error(
                "File DROPPED: the message had a file (%s), but Wassly accepted only a text. The recipient %s did not "
                "get the file",
                message.kind,
                shorten(message.contact_mobile_number),
            )
        return receipt

    def _warn(self, warning: str) -> None:
        # Keeps the log short when every number of a list is doubtful.
        count = next(self._warnings)
        if count <= _MAX_WARNINGS or count % 1000 == 0:
            rest = "; from now on only every 1,000th such warning is logged" if count == _MAX_WARNINGS else ""
            log.warning("%s%s", warning, rest)

    def _send_once(self, message: OutgoingMessage, observer: SendObserver) -> SendReceipt:
        def call(token: str) -> SendReceipt:
            try:
                with SendBody(message.texts, message.files) as body:
                    answer = self._transport.exchange(
                        "POST",
                        SEND,
                        token=token,
                        data=body.stream,
                        content_type=body.content_type,
                        harmless=body.harmless,
                        on_departure=observer.departing,
                        number=message.contact_mobile_number,
                    )
                receipt = read_receipt(answer)
            except WasslyError as error:
                if error.accepted is False:
                    observer.refused(error)
                raise
            observer.accepted(receipt)
            return receipt

        return self._authenticated(call)

    def _list_devices_once(self) -> list[Device]:
        return self._authenticated(lambda token: read_devices(self._transport.exchange("GET", DEVICES, token=token)))

    def _with_device_state(self, rejection: WasslyRejected, instance_id: str) -> WasslyRejected:
        """Return a more exact error if the device list explains the rejection, else the rejection itself."""
        devices = self._device_states.devices_for(instance_id)
        if devices is None:
            return rejection
        device = next((device for device in devices if device.instance_id == instance_id), None)
        if device is None:
            known = ", ".join(sorted(device.instance_id for device in devices if device.instance_id)) or "none"
            kind: type[WasslyRejected] = WasslyInstanceUnknown
            why = f"the account has no instance {instance_id}; its instances: {known}"
        elif not device.is_connected:
            kind = WasslyDeviceDisconnected
            why = f"instance {instance_id} is {device.status or 'without status'}"
        else:
            return rejection
        return kind(
            f"{rejection.message} ({why})",
            status=rejection.status,
            reason=rejection.reason,
            errors=rejection.errors,
        )

    def _authenticated(self, call: Callable[[str], T]) -> T:
        """
        Make a call with a token; if Wassly rejects the token, get a new one and repeat the call once.

        Once more if the new one came from another process: it may be out of date too.
        """
        token = self._tokens.current(self._fetch_token, self._find_token)
        for stored in (self._find_token, nothing_stored):
            self._redactor.add(token)
            try:
                return call(token)
            except WasslyAuthError as error:
                if self._tokens.is_given(token):
                    can, cannot = "logging in instead. Renew or remove it", "no login is set to fetch another"
                    what = can if self._can_login else cannot
                    log.warning("Wassly rejected the token of %s (HTTP %d); %s", self._name, error.status, what)
                if not self._can_login:
                    raise
            token = self._tokens.renew(token, self._fetch_token, stored)
            if not self._tokens.is_found(token):
                break
        self._redactor.add(token)
        return call(token)

    @property
    def _can_login(self) -> bool:
        return bool(self._email and self._password)

    def _fetch_token(self) -> str:
        credentials = json.dumps({"email": self._email, "password": self._password}).encode()
        answer = self._transport.exchange("POST", LOGIN, data=credentials, content_type="application/json")
        try:
            token = read_token(answer)
        except WasslyRateLimited as error:
            if self._named and self._stored_token is None:
                error.message += f"; set share_token in the extra of {self._name} to log in once for all tasks"
            raise
        self._prepare_for(token)
        log.info("Logged in to Wassly%s", self._named)
        return token

    def _find_token(self) -> str | None:
        token = self._stored_token() if self._stored_token is not None else None
        if token is not None:
            self._prepare_for(token)
        return token

    def _prepare_for(self, token: str) -> None:
        self._redactor.add(token)
        if self._on_new_token is not None:
            self._on_new_token(token)

    def _repeating(self, call: Callable[[], T]) -> T:
        def may_be_repeated(error: BaseException) -> bool:
            return (
                isinstance(error, (WasslyUnavailable, WasslyRateLimited))
                and (error.retry_after or 0.0) <= self._max_retry_after
            )

        def was_stale(state: tenacity.RetryCallState) -> bool:
            return state.outcome is not None and isinstance(state.outcome.exception(), StaleConnection)

        def stop(state: tenacity.RetryCallState) -> bool:
            # After a stale connection no kept one is used, so this cannot repeat forever.
            return state.attempt_number >= self._max_attempts and not was_stale(state)

        def wait(state: tenacity.RetryCallState) -> float:
            if was_stale(state):
                return 0.0
            error = state.outcome.exception() if state.outcome else None
            asked = getattr(error, "retry_after", None)
            return _BACKOFF(state) if asked is None else float(asked)

        def announce(state: tenacity.RetryCallState) -> None:
            if was_stale(state):
                log.info("Using a new connection for this and all later calls: Wassly had closed the kept one")
                return
            log.warning(
                "Retrying in %.1f s (attempt %d of %d), not accepted: %s",
                state.upcoming_sleep,
                state.attempt_number + 1,
                self._max_attempts,
                state.outcome.exception() if state.outcome else "",
            )

        repeating = tenacity.Retrying(
            retry=tenacity.retry_if_exception(may_be_repeated),
            stop=stop,
            wait=wait,
            before_sleep=announce,
            sleep=self.clock.sleep,
            reraise=True,
        )
        try:
            return repeating(call)
        except WasslyConfigError as error:
            error.message += self._named
            raise
        except WasslyAuthError as error:
            error.message += f"{self._named}{self._suspicions}"
            raise
