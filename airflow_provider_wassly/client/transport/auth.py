"""Put credentials on a request, and fetch a token once for all threads."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import threading
from collections.abc import Callable

from requests import PreparedRequest
from requests.auth import AuthBase

from airflow_provider_wassly.client.errors import WasslyError

#: Returns the token that another process has fetched with the same credentials, ``None`` if there is none.
StoredToken = Callable[[], str | None]


def nothing_stored() -> None:
    """Return no token; for a client without a store."""


def bare_token(text: str) -> str:
    """Return a token without the ``Bearer`` or ``Authorization:`` that was copied along."""
    return re.sub(r"^(authorization:\s*)?bearer\s+", "", text, flags=re.IGNORECASE)


class WasslyAuth(AuthBase):
    """
    Puts API key and bearer token on a request.

    This is an auth object because requests lets a ``.netrc`` entry replace a plain header.

    :param apikey: the account's API key.
    :param token: the bearer token, ``None`` for the login call.
    """

    def __init__(self, apikey: str, token: str | None) -> None:
        self._apikey = apikey
        self._token = token

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Add the headers."""
        request.headers["apikey"] = self._apikey
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Tokens:
    """
    The current token of one account, shared by all clients and threads of the process.

    :param given: the connection's own token, ``None`` if it has none.
    """

    _accounts: dict[str, Tokens] = {}
    _accounts_lock = threading.Lock()

    def __init__(self, given: str | None) -> None:
        self._given = given
        self._token = given
        self._rejected: str | None = None
        #: Tokens that another process has fetched.
        self._found: set[str] = set()
        self._lock = threading.Lock()
        self._renewals = 0
        self._failure: WasslyError | None = None

    @classmethod
    def of_account(cls, *credentials: str | None) -> Tokens:
        """Return the one object for these credentials: base URL, apikey, email, password and last the given token."""
        key = hashlib.sha256(json.dumps(credentials).encode()).hexdigest()
        with cls._accounts_lock:
            return cls._accounts.setdefault(key, cls(credentials[-1]))

    @property
    def token(self) -> str | None:
        """The current token, ``None`` before the first login."""
        return self._token

    def find(self, stored: StoredToken) -> None:
        """Use the stored token if there is no token yet."""
        with self._lock:
            self._token = self._token or self._usable(stored)

    def current(self, login: Callable[[], str], stored: StoredToken = nothing_stored) -> str:
        """Return the current token; get one as :meth:`renew` does if there is none."""
        return self._token or self.renew(None, login, stored)

    def renew(self, rejected: str | None, login: Callable[[], str], stored: StoredToken = nothing_stored) -> str:
        """
        Return a token other than ``rejected``.

        If several threads ask at the same time, one logs in; the others get its token or its error.

        :param rejected: the token that Wassly rejected, ``None`` if there was none.
        :param login: fetches a new token.
        :param stored: finds the token of another process, which saves the login.
        :raises WasslyError: what ``login`` raised.
        """
        renewals = self._renewals
        with self._lock:
            if self._token is not None and self._token != rejected:
                return self._token
            if self._renewals != renewals and self._failure is not None:
                raise copy.copy(self._failure)
            # Kept, because after a login that failed the store may still have it.
            self._rejected = rejected or self._rejected
            self._token = self._failure = None
            try:
                self._token = self._usable(stored) or login()
            except WasslyError as error:
                self._failure = copy.copy(error)
                raise
            finally:
                self._renewals += 1
            return self._token

    def _usable(self, stored: StoredToken) -> str | None:
        token = stored()
        if token is None or token == self._rejected:
            return None
        self._found.add(token)
        return token

    def forget(self) -> None:
        """Forget a fetched token, so that the next call starts as a new process does."""
        with self._lock:
            self._token, self._rejected = self._given, None

    def is_given(self, token: str) -> bool:
        """Return whether ``token`` is the connection's own."""
        return token == self._given

    def is_found(self, token: str) -> bool:
        """Return whether another process has fetched ``token``."""
        return token in self._found

    @classmethod
    def forget_all(cls) -> None:
        """Forget all tokens of this process, for tests."""
        with cls._accounts_lock:
            cls._accounts.clear()
