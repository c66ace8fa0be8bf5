"""What a test of the suite is, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

Fact = int | float | str
Sizes = TypeVar("Sizes")


@dataclass(frozen=True, slots=True)
class Outcome:
    """``facts`` in the order in which they are told; ``broken`` says in words what must not be, and was."""

    facts: Mapping[str, Fact]
    broken: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        return not self.broken

    def beside(self, other: Outcome) -> Outcome:
        """Both in one."""
        return Outcome({**self.facts, **other.facts}, (*self.broken, *other.broken))


@dataclass(frozen=True, slots=True)
class Scenario(Generic[Sizes]):
    """One row of the table. A module ``test_rNN_*.py`` calls its own ``SCENARIO`` and tests its short form.

    ``must`` is empty where a row is for comparison. ``run`` has a folder of its own for data and logs; it raises for
    what went wrong with the test itself.
    """

    name: str
    title: str
    must: str
    run: Callable[[Path, Sizes], Outcome]
    short: Sizes
    long: Sizes
