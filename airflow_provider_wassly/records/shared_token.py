"""The token of a login, shared with the other processes of this Airflow."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets

from airflow_provider_wassly.airflow_compat import masking, variables
from airflow_provider_wassly.records.signals import in_one_piece

log = logging.getLogger(__name__)


class SharedToken:
    """
    The saved token of one connection: a Variable, which Airflow encrypts.

    If two processes log in at once, each uses its own token, and the Variable has that of the last one. A failure is
    only logged as a warning: a process that cannot read the token logs in.

    :param conn_id: the connection.
    :param credentials: what the login needs. A token that was fetched with others is not used.
    """

    def __init__(self, conn_id: str, *credentials: str | None) -> None:
        self._key = variables.key_of("wassly_token", conn_id)
        self._credentials = hashlib.sha256(json.dumps(credentials).encode()).hexdigest()
        #: What the Variable has, as far as this process knows.
        self._saved: str | None = None

    def read(self) -> str | None:
        """Return the saved token, ``None`` if there is none for these credentials."""
        return in_one_piece(self._read) if self._is_within_reach() else None

    def save(self, token: str) -> None:
        """Replace the saved token, unless it is this one."""
        if token != self._saved and self._is_within_reach():
            in_one_piece(lambda: self._write(token))

    def forget(self) -> None:
        """
        Delete the saved token, if there is one.

        :raises Exception: when Airflow does not answer.
        """
        self._saved = None
        variables.delete_variable(self._key)

    def _is_within_reach(self) -> bool:
        if variables.can_reach_airflow():
            return True
        log.debug("Not sharing the token: Airflow's Variables cannot be reached from here")
        return False

    def _read(self) -> str | None:
        self._saved = None
        try:
            text = variables.get_variable(self._key)
        except Exception as error:
            log.warning("Could not read the shared token in the Variable %s: %s", self._key, _told(error))
            return None
        if text is None:
            return None
        try:
            values = json.loads(text)
            token, fetched_with = values["token"], values["fetched_with"]
            if not re.fullmatch("[ -~]+", token):
                raise ValueError("not a token")
            is_ours = fetched_with == self._fingerprint(fetched_with.partition(":")[0])
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            log.warning("Ignoring the Variable %s: it does not contain a token", self._key)
            return None
        self._saved = token if is_ours else None
        return self._saved

    def _write(self, token: str) -> None:
        values = {"version": 1, "token": token, "fetched_with": self._fingerprint(secrets.token_hex(4))}
        try:
            variables.set_variable(self._key, json.dumps(values), "The token of the last login to Wassly.")
            self._saved = token
        except Exception as error:
            log.warning("Could not save the shared token in the Variable %s: %s", self._key, _told(error))

    def _fingerprint(self, salt: str) -> str:
        # Too short to recover credentials from.
        return f"{salt}:{hashlib.sha256((salt + self._credentials).encode()).hexdigest()[:8]}"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {masking.redact(str(error))}"
