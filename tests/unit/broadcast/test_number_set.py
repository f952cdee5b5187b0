from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_wassly.broadcast.number_set import NumberSet

NUMBERS = st.integers(10**7, 10**15 - 1) | st.integers(4_477_000_000, 4_477_000_300)


@given(st.lists(NUMBERS), st.lists(NUMBERS))
def test_it_holds_what_was_added_and_nothing_else(added: list[int], others: list[int]) -> None:
    numbers, expected = NumberSet(), set[int]()
    for number in added:
        assert numbers.add(number) is (number not in expected)
        expected.add(number)
    assert len(numbers) == len(expected)
    for number in added + others:
        assert (number in numbers) is (number in expected)


@pytest.mark.parametrize("step", [1, 2, 1000, 1024, 2**20])
def test_numbers_that_differ_little_are_found_fast(step: int) -> None:
    numbers = NumberSet()
    for number in range(447_700_000_000, 447_700_000_000 + 20_000 * step, step):
        assert numbers.add(number)
    assert all(447_700_000_000 + step * place in numbers for place in range(20_000))
    assert 447_700_000_000 - 1 not in numbers
    assert len(numbers) == 20_000


def test_it_takes_less_than_forty_bytes_for_each() -> None:
    tracemalloc.start()
    try:
        numbers = NumberSet()
        for number in range(22_000):
            numbers.add(447_700_000_000 + 7 * number)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * 22_000
