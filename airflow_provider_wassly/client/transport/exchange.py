"""One HTTP call: made, watched, and told apart by what of it had left."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import requests
import urllib3
from requests.cookies import RequestsCookieJar

from airflow_provider_wassly import __version__
from airflow_provider_wassly.client._answers import Answer, one_line, refusal
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

#: An answer is a few hundred bytes of JSON; more than this is none of Wassly's.
_MAX_ANSWER = 2**20


class Transport:
    """
    Makes the calls of one client, from many threads.

    :param base_url: where Wassly is.
    :param apikey: the account's API key, for every call.
    :param timeouts: seconds for making a connection, and for each step of an answer.
    :param verify: as in requests.
    :param proxies: as in requests.
    :param use_environment: whether proxies and CA bundle of the environment count.
    :param pool_maxsize: connections kept open, one for each thread that calls at the same time.
    :param redactor: takes secrets out of what is shown.
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
        #: Whether the service has shown that it ends kept connections silently. The next message that left on one could
        #: be lost, or not, without a word; making a connection for each call costs less than that doubt.
        self._keeps_no_connections = False

    def close(self) -> None:
        """Close the connections."""
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
        Make one HTTP call and return the answer as it arrived.

        :param harmless: of a send: how many bytes of the body may have left without it being a valid request.
        :param on_departure: of a send: called before more than that leaves.
        :raises WasslyUnavailable: without an answer, when nothing can have been accepted.
        :raises WasslyOutcomeUnknown: without an answer, when something can have been.
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
                    # The status alone may say that nothing was accepted; a server that refuses early cuts the rest.
                    if refusal(cut) is not None:
                        return cut
                # Whatever it is called, what it means depends on what had left by then. `from None`: the
                # texts and objects of the libraries below hold URLs and headers. For a bug report:
                log.debug("%s %s failed:\n%s", method, path, redact("".join(traceback.format_exception(error))))
                reason = redact(_reason(error))
                if wire.answer_overdue:
                    reason = f"the answer did not come to its end within {wire.answer_limit:g} s"
                if isinstance(error, _SETUP_ERRORS) and wire.connection is None:
                    raise WasslyConfigError(f"the call cannot be made: {reason}") from None
                if harmless is None:
                    raise WasslyUnavailable(f"no answer from {url}: {reason}") from None
                if not wire.request_whole:
                    kind = StaleConnection if wire.was_stale and answered is None else WasslyUnavailable
                    raise kind(f"the request to {url} did not leave whole: {reason}") from None
                if wire.answer_overdue:
                    raise WasslyOutcomeUnknown(f"the request left whole, but {reason}") from None
                raise WasslyOutcomeUnknown(f"the request left whole and no answer came back: {reason}") from None
        return Answer(answered.status_code, answered.headers, body, url, wire.request_whole, redact)


class StaleConnection(WasslyUnavailable):
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
