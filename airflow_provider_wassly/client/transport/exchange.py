"""Make one HTTP call, and tell failures apart by how much of the request was sent."""

from __future__ import annotations

import http.client
import logging
import ssl
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import requests
import urllib3
from requests.cookies import RequestsCookieJar

from airflow_provider_wassly import __version__
from airflow_provider_wassly.client._answers import Answer, not_accepted_error, one_line
from airflow_provider_wassly.client.errors import (
    WasslyConfigError,
    WasslyError,
    WasslyOutcomeUnknown,
    WasslyUnavailable,
)
from airflow_provider_wassly.client.transport.auth import WasslyAuth
from airflow_provider_wassly.client.transport.redaction import Redactor
from airflow_provider_wassly.client.transport.wire import WatchedAdapter, WatchedBody, Wire

log = logging.getLogger(__name__)

#: How many bytes of an answer are read. Wassly's are a few hundred bytes of JSON.
_MAX_ANSWER = 2**20


class Transport:
    """
    Makes the calls of one client, from many threads.

    :param base_url: Wassly's address.
    :param apikey: the account's API key, for every call.
    :param timeouts: seconds to wait for a connection, and for the next bytes to be sent or received.
    :param verify: as in requests.
    :param proxies: as in requests.
    :param use_environment: whether to use the environment's proxies and CA bundle.
    :param pool_maxsize: how many connections to keep open: one for each thread that calls at the same time.
    :param redactor: removes secrets from texts that will be shown.
    """

    def __init__(
        self,
        *,
        base_url: str,
        apikey: str,
        timeouts: tuple[float, float],
        verify: bool | str,
        proxies: Mapping[str, str],
        use_environment: bool,
        pool_maxsize: int,
        redactor: Redactor,
    ) -> None:
        self._base_url = base_url
        self._apikey = apikey
        self._timeout = timeouts
        self._verify = verify
        self._proxies = dict(proxies)
        self._redactor = redactor
        self._session = _session(pool_maxsize, use_environment)
        #: Whether the service has closed a kept-alive connection silently. The next message on one could end without an
        #: answer, accepted or not; a new connection for each call costs less than that doubt.
        self._keeps_no_connections = False

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def exchange(
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
        Make one HTTP call and return its answer, whatever its status.

        :param method: the HTTP method.
        :param path: the endpoint, appended to the base URL.
        :param token: the bearer token, ``None`` for the login call.
        :param data: the body, as requests takes it.
        :param content_type: the body's MIME type.
        :param harmless: for a message: how many bytes of the body can be sent without forming a valid request.
        :param on_departure: for a message: called before more than ``harmless`` bytes are sent; see :class:`Wire`.
        :param number: the recipient's number, to be shortened in texts.
        :raises WasslyConfigError: when requests cannot work with the address, a proxy or a header.
        :raises WasslyUnavailable: when no answer came and Wassly cannot have accepted anything.
        :raises WasslyOutcomeUnknown: when no answer came and Wassly may have accepted the message.
        """
        url = f"{self._base_url}{path}"
        redact = partial(self._redactor.with_number, number=number)
        answered: requests.Response | None = None
        with Wire(self._timeout[1], harmless, on_departure, self._keeps_no_connections) as wire:
            try:
                with self._session.request(
                    method,
                    url,
                    data=data if harmless is None else WatchedBody(wire, data),
                    headers={"Content-Type": content_type} if content_type else None,
                    auth=WasslyAuth(self._apikey, token),
                    timeout=self._timeout,
                    verify=self._verify,
                    proxies=self._proxies.copy(),
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
                    # The status alone may mean that nothing was accepted; a server that refuses early cuts the rest.
                    if not_accepted_error(cut) is not None:
                        return cut
                # The type of the error does not matter, only how much of the request was sent. `from None`, because the
                # libraries below keep URLs and headers in their texts and objects. For a bug report:
                log.debug("%s %s failed:\n%s", method, path, redact("".join(traceback.format_exception(error))))
                reason = redact(_innermost_cause(error, self._timeout[1 if wire.connected else 0]))
                if wire.answer_overdue:
                    reason = f"the answer was not complete after {wire.answer_limit:g} s"
                # After the last part was read, only `request_whole` decides: a library may connect unseen.
                never_connected = not wire.connected and (harmless is None or not wire.request_whole)
                if never_connected and isinstance(error, _SETUP_ERRORS):
                    raise WasslyConfigError(f"cannot make the call: {reason}") from None
                if never_connected:
                    raise WasslyUnavailable(
                        f"could not connect to {self._base_url} ({reason}); nothing was sent"
                    ) from None
                if harmless is None:
                    raise WasslyUnavailable(f"no answer from {url}: {reason}") from None
                if not wire.request_whole:
                    kind = StaleConnection if wire.was_stale and answered is None else WasslyUnavailable
                    raise kind(f"the connection to {url} failed before the request was complete: {reason}") from None
                if not wire.answer_overdue:
                    reason = f"{'no answer came back' if answered is None else 'the answer is unreadable'}: {reason}"
                raise WasslyOutcomeUnknown(f"the complete request was sent, but {reason}") from None
        return Answer(answered.status_code, answered.headers, body, url, wire.request_whole, redact)


class StaleConnection(WasslyUnavailable):
    """Raised when the service had closed the kept-alive connection; the call is repeated at once on a new one."""


#: What requests raises before it connects, for settings that it cannot work with. (It raises some of these, such as
#: InvalidHeader, for an answer too: by then a message may have been accepted.)
_SETUP_ERRORS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidProxyURL,
    requests.exceptions.InvalidHeader,
)


def _session(pool_maxsize: int, use_environment: bool) -> requests.Session:
    session = _Session()
    # Covers the environment's proxies and CA bundle; the auth object keeps .netrc out.
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
    """A session that ignores redirects."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """
        Return no target.

        Even with ``allow_redirects=False``, requests reads the whole body of a redirect and parses its target; a
        failure there would hide the status from us.
        """
        return None


class _NoCookies(RequestsCookieJar):
    """Keeps no cookies: one thread's session cookie must not travel with another thread's call."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Do nothing."""


def _innermost_cause(error: Exception, timeout: float) -> str:
    """
    Return in one line why a call failed.

    :param error: what requests raised. It wraps urllib3's error, which wraps the socket's; the innermost says it best.
    :param timeout: the seconds that were waited for, if the cause is a timeout.
    """
    cause: Any = error
    where = ""
    while True:
        if isinstance(cause, urllib3.exceptions.ProxyError):
            where = "proxy: "
        inner = getattr(cause, "reason", None) or next((arg for arg in cause.args if isinstance(arg, Exception)), None)
        if inner is None and isinstance(cause, urllib3.exceptions.ConnectTimeoutError):
            inner = cause.__cause__  # also of NewConnectionError and NameResolutionError, which derive from it
        if not isinstance(inner, Exception) or inner is cause:
            break
        cause = inner
    if isinstance(cause, http.client.RemoteDisconnected):
        text = "the connection was closed"
    elif isinstance(cause, OSError) and cause.strerror and not isinstance(cause, ssl.SSLError):
        text = f"{cause.strerror[0].lower()}{cause.strerror[1:]}"
    elif isinstance(cause, (TimeoutError, urllib3.exceptions.TimeoutError)):
        text = f"timed out after {timeout:g} s"
    elif isinstance(cause, urllib3.exceptions.HTTPError) and ": " in str(cause):
        text = str(cause).split(": ", 1)[1]  # urllib3 puts the connection object before the text
    else:
        text = str(cause) if type(cause) is OSError else f"{type(cause).__name__}: {cause}"
    return one_line(f"{where}{text}")
