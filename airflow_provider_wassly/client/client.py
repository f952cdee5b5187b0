"""The client: the three documented endpoints of the Wassly API."""

from __future__ import annotations

import ipaddress
import itertools
import json
import logging
import math
import os
import re
import traceback
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
import tenacity
import urllib3
from requests.cookies import RequestsCookieJar

from airflow_provider_wassly import __version__
from airflow_provider_wassly.client._answers import (
    Answer,
    is_header_value,
    one_line,
    read_devices,
    read_receipt,
    read_token,
    refusal,
)
from airflow_provider_wassly.client._auth import Tokens, WasslyAuth, bare_token
from airflow_provider_wassly.client._devices import DeviceStates
from airflow_provider_wassly.client._multipart import SendBody
from airflow_provider_wassly.client._network import check_bundle, check_proxies, proxy_password
from airflow_provider_wassly.client._redaction import Redactor
from airflow_provider_wassly.client._wire import WatchedAdapter, Wire
from airflow_provider_wassly.client.attachments import Attachment
from airflow_provider_wassly.client.clock import SYSTEM, Clock
from airflow_provider_wassly.client.errors import (
    WasslyAuthError,
    WasslyConfigError,
    WasslyDeviceDisconnected,
    WasslyError,
    WasslyInstanceUnknown,
    WasslyOutcomeUnknown,
    WasslyRateLimited,
    WasslyRejected,
    WasslyUnavailable,
)
from airflow_provider_wassly.client.messages import OutgoingMessage, prepare
from airflow_provider_wassly.client.models import Device, SendReceipt
from airflow_provider_wassly.client.numbers import check_region, normalize, shorten
from airflow_provider_wassly.client.observer import SendObserver

log = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_BASE_URL = "https://www.wassly.com"
_LOGIN = "/api/login"
_DEVICES = "/api/whatsapp-web-devices"
_SEND = "/api/whatsapp-web-send-message"

#: Seconds between two attempts when Wassly does not name them.
_BACKOFF = tenacity.wait_exponential_jitter(initial=1, max=10)

#: An answer is a few hundred bytes of JSON; more than this is none of Wassly's.
_MAX_ANSWER = 2**20
#: As many doubtful numbers are logged one by one.
_MAX_WARNINGS = 20


class WasslyClient:
    """
    A client of the Wassly API, usable from many threads.

    The clients of one process that have the same credentials share a fetched token. A context
    manager; :meth:`close` ends its connections.

    :param apikey: the account's API key.
    :param base_url: where Wassly is. Plain http only for a loopback host, or with ``allow_http``. An ``/api`` at its
        end is left out, because the calls bring their own.
    :param token: a bearer token, used first, with or without ``Bearer`` in front. Optional when ``email`` and
        ``password`` are given.
    :param email: with ``password``, for fetching a token when there is none or it is rejected.
    :param password: see ``email``.
    :param connect_timeout: seconds for making a connection.
    :param read_timeout: seconds without a byte of the answer, or without the service taking any of an upload. The whole
        answer, interim ones included, may take twice as long.
    :param verify: whether TLS certificates are verified, or the path of a CA bundle.
    :param proxies: as in requests; without it those of the environment, but not for a loopback host.
    :param allow_http: accept a plain http ``base_url`` that is not a loopback host.
    :param default_region: two-letter country code in which numbers without country code are read.
    :param allowed_recipients: when given, the only numbers that can be sent to.
    :param max_attempts: how often a call that certainly was not processed and may pass is made in all. One more if the
        last of them only met the end of a kept connection.
    :param max_retry_after: seconds; a longer wait asked for by Wassly is an error at once, not a wait.
    :param pool_maxsize: connections kept open, one for each thread that calls at the same time.
    :param name: what log lines and errors call the account; the hook gives its connection.
    :param on_new_token: called with each fetched token, in the thread that fetched it, before its first use.
    :param clock: what waits between two attempts; a test can hand in one that does not.
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
        clock: Clock = SYSTEM,
    ) -> None:
        self._name = name or "the connection"
        self._named = f" ({name})" if name else ""
        token = bare_token(token) if token else None
        _check_credentials(apikey, token, email, password)
        host = _check_base_url(base_url, allow_http)
        use_environment = not _is_loopback(host)
        _check_seconds(connect_timeout=connect_timeout, read_timeout=read_timeout)
        check_bundle(verify, use_environment and urlsplit(base_url).scheme == "https")
        if verify is False:
            log.warning("TLS certificates of %s are not verified (verify is false in %s)", host, self._name)
        self.base_url = _without_endpoint(base_url)
        self.default_region = check_region(default_region) if default_region else None
        self.allowed_recipients = _check_recipients(allowed_recipients, self.default_region)
        self._apikey = apikey
        self._email = email
        self._password = password
        self._timeout = (connect_timeout, read_timeout)
        self._verify = verify
        self._proxies = {key: url.strip() for key, url in (proxies or {}).items()}
        self._max_attempts = max_attempts
        self._max_retry_after = max_retry_after
        self._on_new_token = on_new_token
        self.clock = clock
        self._device_states = DeviceStates(self._list_devices_once, clock)
        self._suspicions = _suspicions(apikey, token, password)
        self._tokens = Tokens.of_account(self.base_url, apikey, email, password, token)
        self._redactor = Redactor(apikey, token, password)
        for proxy in check_proxies(self.base_url, self._proxies, use_environment):
            password_in_url = proxy_password(proxy)
            self._redactor.add(password_in_url)
            self._redactor.add(unquote(password_in_url))
        #: Whether the service has shown that it ends kept connections silently. The next message that left on one could
        #: be lost, or not, without a word; making a connection for each call costs less than that doubt.
        self._keeps_no_connections = False
        #: Counts the messages to doubtful numbers.
        self._warnings = itertools.count(1)
        self._session = _session(pool_maxsize, use_environment)

    def __enter__(self) -> WasslyClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r})"

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def login(self) -> None:
        """
        Fetch a new token with email and password, for all later calls.

        Not needed before other calls, which log in by themselves.

        :raises WasslyAuthError: when they are missing or not accepted.
        :raises WasslyRateLimited: on 429.
        :raises WasslyUnavailable: when Wassly cannot be reached or answers nonsense.
        """
        if not self._can_login:
            raise WasslyAuthError(f"no login and password are set{self._named}")
        self._repeating(lambda: self._tokens.renew(self._tokens.token, self._fetch_token))

    def list_devices(self) -> list[Device]:
        """
        Return the WhatsApp Web sessions of the account.

        :raises WasslyAuthError: when the credentials are not accepted.
        :raises WasslyRejected: on any other 4xx.
        :raises WasslyRateLimited: on 429.
        :raises WasslyUnavailable: when Wassly cannot be reached or answers nonsense.
        """
        return self._repeating(self._list_devices_once)

    def prepare(
        self,
        *,
        contact_mobile_number: str,
        instance_id: str,
        message: str | None = None,
        contact_name: str | None = None,
        document: Attachment | str | os.PathLike[str] | None = None,
        media: Attachment | str | os.PathLike[str] | None = None,
    ) -> OutgoingMessage:
        """
        Check a message as far as that is possible without a call; the parameters are those of :meth:`send_message`.

        :raises WasslyInvalidMessage: names the parameter that is wrong.
        """
        return prepare(
            contact_mobile_number=contact_mobile_number,
            instance_id=instance_id,
            message=message,
            contact_name=contact_name,
            document=document,
            media=media,
            default_region=self.default_region,
            allowed_recipients=self.allowed_recipients,
        )

    def send_message(
        self,
        *,
        contact_mobile_number: str,
        instance_id: str,
        message: str | None = None,
        contact_name: str | None = None,
        document: Attachment | str | os.PathLike[str] | None = None,
        media: Attachment | str | os.PathLike[str] | None = None,
    ) -> SendReceipt:
        """
        Send one message.

        Repeated only while it certainly was not accepted and may pass; see ``max_attempts``.

        :param contact_mobile_number: the recipient, with ``+`` and country code, or in the national form of
            ``default_region``.
        :param instance_id: the connected WhatsApp Web session that sends.
        :param message: the text; required when there is neither ``document`` nor ``media``.
        :param contact_name: display name of the contact.
        :param document: a document, as path or :class:`Attachment`.
        :param media: an image, a video or an audio file, as path or :class:`Attachment`.
        :raises WasslyInvalidMessage: before any call, when the message cannot be sent as it is.
        :raises WasslyError: any other of the tree; its ``accepted`` says what is known.
        """
        return self.send(
            self.prepare(
                contact_mobile_number=contact_mobile_number,
                instance_id=instance_id,
                message=message,
                contact_name=contact_name,
                document=document,
                media=media,
            )
        )

    def send(
        self,
        message: OutgoingMessage,
        *,
        observer: SendObserver | None = None,
    ) -> SendReceipt:
        """
        Send a message that was prepared before.

        :param observer: is told what becomes of it, as soon as that is certain.
        :raises WasslyError: as :meth:`send_message`.
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
                "Wassly says that it accepted a text, but a file was sent (%s): the file was DROPPED. "
                "The recipient %s did not get it",
                message.kind,
                shorten(message.contact_mobile_number),
            )
        return receipt

    def _warn(self, warning: str) -> None:
        # Of a list whose numbers are all written like that, the log is to stay short.
        count = next(self._warnings)
        if count <= _MAX_WARNINGS or count % 1000 == 0:
            rest = "; from now on, only every 1,000th such line is logged" if count == _MAX_WARNINGS else ""
            log.warning("%s%s", warning, rest)

    def _send_once(self, message: OutgoingMessage, observer: SendObserver) -> SendReceipt:
        def call(token: str) -> SendReceipt:
            try:
                with SendBody(message.texts, message.files) as body:
                    answer = self._exchange(
                        "POST",
                        _SEND,
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
        return self._authenticated(lambda token: read_devices(self._exchange("GET", _DEVICES, token=token)))

    def _with_device_state(self, rejection: WasslyRejected, instance_id: str) -> WasslyRejected:
        """Return the rejection, made more exact if the device list explains it."""
        devices = self._device_states.devices_for(instance_id)
        if devices is None:
            return rejection
        device = next((device for device in devices if device.instance_id == instance_id), None)
        if device is None:
            known = ", ".join(sorted(device.instance_id for device in devices if device.instance_id)) or "none"
            kind: type[WasslyRejected] = WasslyInstanceUnknown
            why = f"the account has no instance {instance_id}, only: {known}"
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
        """Make a call with a token; if it is not accepted, renew it and repeat the call, once."""
        token = self._tokens.current(self._fetch_token)
        self._redactor.add(token)
        try:
            return call(token)
        except WasslyAuthError as error:
            if self._tokens.is_given(token):
                can, cannot = "logging in instead. Renew or remove it", "there is no login to fetch another"
                what = can if self._can_login else cannot
                log.warning("The token of %s was rejected (HTTP %d); %s", self._name, error.status, what)
            if not self._can_login:
                raise
        token = self._tokens.renew(token, self._fetch_token)
        self._redactor.add(token)
        return call(token)

    @property
    def _can_login(self) -> bool:
        return bool(self._email and self._password)

    def _fetch_token(self) -> str:
        credentials = json.dumps({"email": self._email, "password": self._password}).encode()
        answer = self._exchange("POST", _LOGIN, data=credentials, content_type="application/json")
        token = read_token(answer)
        self._redactor.add(token)
        if self._on_new_token is not None:
            self._on_new_token(token)
        log.info("Logged in to Wassly%s", self._named)
        return token

    def _repeating(self, call: Callable[[], T]) -> T:
        def may_be_repeated(error: BaseException) -> bool:
            return (
                isinstance(error, (WasslyUnavailable, WasslyRateLimited))
                and (error.retry_after or 0.0) <= self._max_retry_after
            )

        def was_stale(state: tenacity.RetryCallState) -> bool:
            return state.outcome is not None and isinstance(state.outcome.exception(), _StaleConnection)

        def stop(state: tenacity.RetryCallState) -> bool:
            # After one that was stale no kept connection is used, so this cannot go on and on.
            return state.attempt_number >= self._max_attempts and not was_stale(state)

        def wait(state: tenacity.RetryCallState) -> float:
            if was_stale(state):
                return 0.0
            error = state.outcome.exception() if state.outcome else None
            asked = getattr(error, "retry_after", None)
            return _BACKOFF(state) if asked is None else float(asked)

        def announce(state: tenacity.RetryCallState) -> None:
            if was_stale(state):
                log.info("Sending on a fresh connection, and so from now on: the service had ended the kept one")
                return
            log.warning(
                "Trying again in %.1f s (attempt %d of %d), because it was not accepted: %s",
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

    def _exchange(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        data: Any = None,
        content_type: str | None = None,
        harmless: int | None = None,
        on_departure: Callable[[], None] | None = None,
        number: str | None = None,
    ) -> Answer:
        """
        Make one HTTP call and return the answer as it arrived.

        :param harmless: of a send: how many bytes of the body may have left without it being a valid request.
        :param on_departure: of a send: called before more than that leaves.
        :raises WasslyUnavailable: without an answer, when nothing can have been accepted.
        :raises WasslyOutcomeUnknown: without an answer, when something can have been.
        """
        url = f"{self.base_url}{path}"
        redact = partial(self._redactor.with_number, number=number)
        answered: requests.Response | None = None
        with Wire(self._timeout[1], harmless, on_departure, self._keeps_no_connections) as wire:
            try:
                with self._session.request(
                    method,
                    url,
                    data=data,
                    headers={"Content-Type": content_type} if content_type else None,
                    auth=WasslyAuth(self._apikey, token),
                    timeout=self._timeout,
                    verify=self._verify,
                    proxies=dict(self._proxies),
                    allow_redirects=False,
                    stream=True,
                ) as answered:
                    body = answered.raw.read(_MAX_ANSWER, decode_content=True)
            except WasslyError:
                raise
            except Exception as error:
                if wire.ended_while_kept:
                    self._keeps_no_connections = True
                if (held_back_by := wire.held_back_by) is not None:
                    raise held_back_by from held_back_by.__cause__
                if answered is not None:
                    cut = Answer(answered.status_code, answered.headers, b"", url, wire.request_whole, redact)
                    # The status alone may say that nothing was accepted; a server that refuses early cuts the rest.
                    if refusal(cut) is not None:
                        return cut
                # Whatever it is called, what it means depends on what had left by then. `from None`: the
                # texts and objects of the libraries below hold URLs and headers. For a bug report:
                log.debug("%s %s failed:\n%s", method, path, redact("".join(traceback.format_exception(error))))
                reason = redact(_reason(error))
                if wire.answer_overdue:
                    reason = f"the answer did not come to its end within {wire.answer_limit:g} s"
                if isinstance(error, _SETUP_ERRORS) and not wire.began:
                    raise WasslyConfigError(f"the call cannot be made: {reason}") from None
                if harmless is None:
                    raise WasslyUnavailable(f"no answer from {url}: {reason}") from None
                if not wire.request_whole:
                    kind = _StaleConnection if wire.was_stale and answered is None else WasslyUnavailable
                    raise kind(f"the request to {url} did not leave whole: {reason}") from None
                if wire.answer_overdue:
                    raise WasslyOutcomeUnknown(f"the request left whole, but {reason}") from None
                raise WasslyOutcomeUnknown(f"the request left whole and no answer came back: {reason}") from None
        return Answer(answered.status_code, answered.headers, body, url, wire.request_whole, redact)


class _StaleConnection(WasslyUnavailable):
    """The service had ended the kept connection; the same call, made again on a fresh one, follows at once."""


#: What requests raises, before it makes a connection, for settings that it cannot work with. (Some it raises for an
#: answer too, InvalidHeader for one: by then a message may have been accepted.)
_SETUP_ERRORS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidProxyURL,
    requests.exceptions.InvalidHeader,
)


def _session(pool_maxsize: int, use_environment: bool) -> requests.Session:
    session = _Session()
    # Covers the environment's proxies and CA bundle; .netrc is kept out by the auth object.
    session.trust_env = use_environment
    session.headers.clear()
    session.headers.update(
        {
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "User-Agent": f"airflow-provider-wassly/{__version__}",
        }
    )
    session.cookies = _NoCookies()
    for prefix in ("https://", "http://"):
        session.mount(prefix, WatchedAdapter(pool_maxsize))
    return session


class _Session(requests.Session):
    """A session that knows no redirects."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """
        Return none.

        Even where it is told not to follow, requests reads the body of a redirect to its end, however long, and
        parses where it points; what fails there would hide the status from us.
        """
        return None


class _NoCookies(RequestsCookieJar):
    """A session cookie of one thread's answer must not travel with another thread's call."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Keep none."""


def _check_credentials(apikey: str, token: str | None, email: str | None, password: str | None) -> None:
    for name, value in {"apikey": apikey, "token": token}.items():
        if value and not is_header_value(value):
            raise WasslyConfigError(
                f"{name}: holds a line break, an outer space or a character beyond ASCII, which no header can carry"
            )
    if not apikey:
        raise WasslyConfigError("apikey: missing; Wassly shows it in the account's settings")
    if not token and not (email and password):
        missing = "login and password" if not (email or password) else "password" if email else "login"
        raise WasslyConfigError(f"{missing}: missing; give login (the account's email) and password, or a token")


def _suspicions(apikey: str, token: str | None, password: str | None) -> str:
    """Return what looks wrong with credentials and yet may be right; to be said when they were not accepted."""
    found = [
        f"; {name} holds a space (in a URI a + is read as one: write %2B)"
        for name, value in {"apikey": apikey, "token": token}.items()
        if value and " " in value
    ]
    found += [
        f"; {name} holds more than the secret itself: remove quotes and the header's name"
        for name, value in {"apikey": apikey, "token": token}.items()
        if value and re.match(r"[\"']|(authorization|bearer|token|api-?key)(\s|:|$)", value, re.IGNORECASE)
    ]
    if password and password != password.strip():
        found.append("; password begins or ends with white space: remove it if it is not part of it")
    return "".join(found)


def _check_base_url(base_url: str, allow_http: bool) -> str:
    """Return the host of ``base_url``."""
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise WasslyConfigError(f"host: {base_url!r} is no URL: {error}") from None
    if parts.scheme not in {"http", "https"} or not host or any(char.isspace() for char in base_url):
        raise WasslyConfigError(f"host: {base_url!r} is no URL such as {DEFAULT_BASE_URL}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise WasslyConfigError(
            "host: holds credentials, a query or a fragment; only schema, host, port and path belong there"
        )
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        raise WasslyConfigError(
            f"host: http://{host} would send apikey, password and messages unencrypted; "
            "use https, or set allow_http in the connection's extra"
        )
    return host


def _without_endpoint(base_url: str) -> str:
    """Return the base URL without what the calls add to it, which is easily copied with it."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/")
    for end in (_LOGIN, _DEVICES, _SEND, "/api"):
        if path.endswith(end):
            path = path.removesuffix(end).rstrip("/")
            break
    return urlunsplit(parts._replace(path=path))


def _check_seconds(**timeouts: float) -> None:
    for name, seconds in timeouts.items():
        if not 0 < seconds < math.inf:
            raise WasslyConfigError(f"{name}: must be a number of seconds above 0, not {seconds!r}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def _check_recipients(recipients: Collection[str] | None, region: str | None) -> frozenset[str] | None:
    if recipients is None:
        return None
    if isinstance(recipients, str):
        raise WasslyConfigError("allowed_recipients: must be a list of numbers")
    allowed = set()
    for number in recipients:
        try:
            allowed.add(normalize(number, region))
        except WasslyError as error:
            raise WasslyConfigError(f"allowed_recipients: {shorten(str(number))}: {error}") from None
    return frozenset(allowed)


def _reason(error: Exception) -> str:
    """Name what a library below reported, in one line."""
    cause: Any = error
    # requests wraps urllib3, which wraps the socket's error; the innermost says it best.
    while True:
        inner = getattr(cause, "reason", None) or next((arg for arg in cause.args if isinstance(arg, Exception)), None)
        if not isinstance(inner, Exception) or inner is cause:
            break
        cause = inner
    if isinstance(cause, urllib3.exceptions.HTTPError) and ": " in str(cause):
        # urllib3 puts the connection object before the text.
        return one_line(str(cause).split(": ", 1)[1])
    return one_line(f"{type(cause).__name__}: {cause}")
