"""What the cache gives to sequences: units of one kind, counted and accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


class Units:
    """Slots, windows or pages: which are free, and how many sequences hold each of the others."""

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count = name, count
        self._free = list(range(count))
        self._holders: Counter[int] = Counter()

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def used(self) -> int:
        return self.count - len(self._free)

    def take(self, count: int) -> list[int]:
        return [self._free.pop() for _ in range(count)]

    def hold(self, units: Sequence[int]) -> None:
        """One sequence more holds these."""
        self._holders.update(units)

    def release(self, units: Sequence[int]) -> None:
        """One sequence less holds these; what nobody holds is free."""
        self._holders.subtract(units)
        self._free += [unit for unit in units if self._holders[unit] == 0]

    def check_all_free(self) -> None:
        held = [unit for unit, holders in self._holders.items() if holders]
        assert not held, f"{self.name} {held[:5]} are held by nobody that runs"
        assert sorted(self._free) == list(range(self.count)), f"{self.name} were lost or freed twice"
