"""Work on the shards that are missing: alone, or with whoever else has time.

Where the others are and how they are told is not known here: see :mod:`worker.crew` for those of a ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.shards import Shards, Span


class Crew(Protocol):
    """Those who work on one job."""

    @property
    def me(self) -> str:
        """The name of this worker."""

    def has_company(self) -> bool:
        """Whether there is another worker that could take a part; where there is none, nothing is worth preparing."""

    def do(self, parts: Sequence[str], work: Callable[[str], None], done: Callable[[str, str], None]) -> None:
        """Return when every part was done, by ``work`` in this process or by somebody else.

        ``done`` is told each part and who did it. That somebody did it is hearsay: look into the store.
        """


@dataclass(frozen=True, slots=True)
class Alone:
    """Nobody else."""

    me: str = "this process"

    def has_company(self) -> bool:
        return False

    def do(self, parts: Sequence[str], work: Callable[[str], None], done: Callable[[str, str], None]) -> None:
        for part in parts:
            work(part)
            done(part, self.me)


def complete(passes: Sequence[Shards], crew: Crew, told: Callable[[int, bool], None]) -> Counter[str]:
    """See to it that every shard of ``passes`` is in the store; who computed how many rows.

    A shard that another worker is said to have done, and that is not there or not what was written, is computed here.
    ``told`` hears (rows, whether they were there before) of what this process did not compute: of that, the passes
    themselves tell.

    Raises:
        StorageFailed: the store has no room for them, or fails. Also what computing a shard raises.
    """
    missing: dict[str, tuple[Shards, Span]] = {}
    for shards in passes:
        for span in shards.of.spans:
            if shards.look(span):
                told(span.rows, True)
            else:
                missing[shards.part(span)] = (shards, span)
    rows_by: Counter[str] = Counter()

    def work(part: str) -> None:
        shards, span = missing[part]
        shards.fill(span)

    def done(part: str, worker: str) -> None:
        rows = missing[part][1].rows
        rows_by[worker] += rows
        if worker != crew.me:
            told(rows, False)

    if missing:
        _make_room([*missing.values()], crew)
        crew.do(list(missing), work, done)
    for part, (shards, span) in missing.items():
        if not shards.look(span):
            work(part)
            rows_by[crew.me] += span.rows
    return rows_by


def _make_room(missing: Sequence[tuple[Shards, Span]], crew: Crew) -> None:
    """For all at once, before the first is computed; but not here for what others will have on disks of their own."""
    store = missing[0][0].store
    if not (store.shared and crew.has_company()):
        store.make_room(sum(shards.of.size(span) for shards, span in missing))
