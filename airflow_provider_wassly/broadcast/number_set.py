"""A set of phone numbers that takes little more memory than the numbers themselves."""

from __future__ import annotations

from array import array

#: Spreads numbers that differ in their last digits only: 2 to the power of 64, divided by the golden ratio.
_SPREAD = 0x9E3779B97F4A7C15
_SMALLEST = 1024


class NumberSet:
    """
    Whole numbers above 0 and below 2 to the power of 64, in an array with linear probing.

    Python's own set takes some 90 bytes for each, an object for every number among them; this takes 12 to 24.
    """

    def __init__(self) -> None:
        self._slots = array("Q", [0]) * _SMALLEST
        self._mask = _SMALLEST - 1
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, number: int) -> bool:
        return self._slots[self._slot_of(number)] == number

    def add(self, number: int) -> bool:
        """Add a number; return whether it was new."""
        slot = self._slot_of(number)
        if self._slots[slot] == number:
            return False
        self._slots[slot] = number
        self._size += 1
        if 3 * self._size > 2 * len(self._slots):
            self._grow()
        return True

    def _slot_of(self, number: int) -> int:
        """Return where a number is, or where there is room for it."""
        slots, mask = self._slots, self._mask
        slot = (number * _SPREAD >> 24) & mask
        while (found := slots[slot]) and found != number:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        numbers = self._slots
        self._slots = array("Q", [0]) * (2 * len(numbers))
        self._mask = len(self._slots) - 1
        for number in numbers:
            if number:
                self._slots[self._slot_of(number)] = number
