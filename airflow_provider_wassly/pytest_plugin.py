"""
The fixture ``wassly_sandbox``, for tests of DAGs.

pytest loads this module in every run of an environment that has the package, so it imports only pytest; the fixture
imports the rest when a test uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_wassly.sandbox import Sandbox


@pytest.fixture
def wassly_sandbox() -> Iterator[Sandbox]:
    """A local stand-in for the Wassly service, new for each test; the connection ``wassly_default`` points to it."""
    from airflow_provider_wassly.client.transport.auth import Tokens
    from airflow_provider_wassly.sandbox import Sandbox

    box = Sandbox()
    try:
        box.start()
    except ModuleNotFoundError as missing:
        raise pytest.fail.Exception(str(missing), pytrace=False) from None
    try:
        # An earlier sandbox may have had the same port; with its token, the first call would be refused.
        Tokens.forget_all()
        # Not the test's own monkeypatch, because the test may undo it.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", box.connection)
            yield box
    finally:
        box.stop()
