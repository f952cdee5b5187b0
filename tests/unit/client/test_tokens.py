from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_wassly.client import WasslyError, WasslyUnavailable
from airflow_provider_wassly.client.transport.auth import Tokens

THREADS = 20


class Login:
    """Counts logins, and makes each wait for the other threads to arrive."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.calls = 0
        self.error = error

    def __call__(self) -> str:
        self.calls += 1
        time.sleep(0.05)
        if self.error is not None:
            raise self.error
        return f"token-{self.calls}"


def at_once(call: Callable[[], str]) -> list[str | WasslyError]:
    """Make a call in many threads that start together."""
    barrier = threading.Barrier(THREADS)

    def one(_: int) -> str | WasslyError:
        barrier.wait()
        try:
            return call()
        except WasslyError as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, range(THREADS)))


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    Tokens.forget_all()
    yield
    Tokens.forget_all()


def test_threads_that_meet_a_rejected_token_together_cause_one_login() -> None:
    tokens, login = Tokens("old"), Login()
    assert at_once(lambda: tokens.renew("old", login)) == ["token-1"] * THREADS
    assert login.calls == 1


def test_threads_that_begin_without_a_token_cause_one_login() -> None:
    tokens, login = Tokens(None), Login()
    assert at_once(lambda: tokens.current(login)) == ["token-1"] * THREADS
    assert login.calls == 1


def test_a_login_that_fails_is_told_to_all() -> None:
    failure = WasslyUnavailable("HTTP 500", retry_after=7)
    tokens, login = Tokens("old"), Login(failure)
    told = at_once(lambda: tokens.renew("old", login))
    assert login.calls == 1
    assert [type(error) for error in told] == [WasslyUnavailable] * THREADS
    assert [str(error) for error in told] == ["HTTP 500"] * THREADS
    assert len(set(map(id, told))) == THREADS, "threads share an exception, and so its traceback"


def test_after_a_login_that_failed_the_next_call_tries_again() -> None:
    tokens = Tokens("old")
    with pytest.raises(WasslyUnavailable):
        tokens.renew("old", Login(WasslyUnavailable("HTTP 500")))
    assert tokens.current(Login()) == "token-1"


def test_a_login_that_was_interrupted_leaves_no_earlier_failure_behind() -> None:
    tokens = Tokens("old")
    with pytest.raises(WasslyUnavailable):
        tokens.renew("old", Login(WasslyUnavailable("of long ago")))
    interrupted, login = Login(KeyboardInterrupt()), Login()
    began = threading.Event()

    def first() -> None:
        began.set()
        with pytest.raises(KeyboardInterrupt):
            tokens.renew("old", interrupted)

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first)
        began.wait()
        time.sleep(0.05)
        other = pool.submit(tokens.renew, "old", login)
        one.result()
        assert other.result() == "token-1"


def test_a_thread_that_comes_late_takes_the_new_token() -> None:
    tokens, login = Tokens("old"), Login()
    tokens.renew("old", login)
    assert tokens.renew("old", login) == "token-1"
    assert login.calls == 1
    assert tokens.renew("token-1", login) == "token-2"


def never() -> str:
    raise AssertionError("there was a login")


def test_a_stored_token_saves_the_login() -> None:
    tokens = Tokens(None)
    tokens.find(lambda: "stored")
    assert tokens.current(never) == "stored"
    assert Tokens(None).current(never, lambda: "stored") == "stored"


def test_the_connections_own_token_comes_before_a_stored_one() -> None:
    tokens = Tokens("own")
    tokens.find(lambda: "stored")
    assert tokens.current(never, lambda: "stored") == "own"
    assert tokens.renew("own", never, lambda: "stored") == "stored"


def test_threads_that_meet_a_rejected_token_together_look_into_the_store_once() -> None:
    looks: list[int] = []

    def stored() -> str:
        looks.append(threading.get_ident())
        time.sleep(0.05)
        return "renewed elsewhere"

    tokens = Tokens("old")
    assert at_once(lambda: tokens.renew("old", never, stored)) == ["renewed elsewhere"] * THREADS
    assert len(looks) == 1


def test_threads_that_meet_a_stored_token_that_is_out_of_date_cause_one_login() -> None:
    tokens, login = Tokens(None), Login()
    tokens.find(lambda: "stale")
    assert at_once(lambda: tokens.renew("stale", login, lambda: "stale")) == ["token-1"] * THREADS
    assert login.calls == 1


def test_a_rejected_token_in_the_store_is_not_tried_again_after_a_login_that_failed() -> None:
    tokens = Tokens(None)
    tokens.find(lambda: "stale")
    with pytest.raises(WasslyUnavailable):
        tokens.renew("stale", Login(WasslyUnavailable("HTTP 500")), lambda: "stale")
    assert tokens.current(Login(), lambda: "stale") == "token-1"


def test_after_a_login_that_failed_a_token_that_another_process_has_fetched_is_used() -> None:
    tokens = Tokens("old")
    with pytest.raises(WasslyUnavailable):
        tokens.renew("old", Login(WasslyUnavailable("HTTP 500")), lambda: None)
    assert tokens.current(never, lambda: "stored") == "stored"


def test_which_tokens_were_found_is_known() -> None:
    tokens = Tokens("own")
    assert tokens.is_found(tokens.renew("own", never, lambda: "stored"))
    assert not tokens.is_found(tokens.renew("stored", Login(), lambda: "stored"))


def test_a_forgotten_token_is_not_used_again() -> None:
    tokens = Tokens(None)
    tokens.find(lambda: "stored")
    tokens.forget()
    assert tokens.current(Login()) == "token-1"
    given = Tokens("own")
    given.renew("own", Login())
    given.forget()
    assert given.current(never) == "own"


def test_the_same_credentials_share_a_token_and_others_do_not() -> None:
    account = ("https://a", "key", "email", "password", None)
    assert Tokens.of_account(*account) is Tokens.of_account(*account)
    for position in range(5):
        other = [*account]
        other[position] = "other"
        assert Tokens.of_account(*other) is not Tokens.of_account(*account)
