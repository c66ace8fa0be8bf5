"""What the ledger counts for good: written in the step that changes the job, read by the metrics.

A total is a name with labels, joined by slashes; a histogram is a total for each bucket, ``<name>/<bound>``, and one
for the sum, ``<name>/sum``. Counted in the ledger and not in a process, they are right with many processes and
outlast each.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ascribe.result import Manifest

FINISHED = "finished"
"""``finished/<solver>/<status>``; also in common.lua."""
LEASE_LOST = "lease_lost"
"""Also in reconcile.lua."""
HANDED_BACK = "handed_back"
"""Also in end.lua."""
PHASE_SECONDS = "phase_seconds"
RESIDUAL = "residual"
CACHE_HITS = "cache_hits"
CACHE_ROWS = "cache_rows"

SECONDS_BOUNDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0, math.inf)
RESIDUAL_BOUNDS = (1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, math.inf)


@dataclass(frozen=True, slots=True)
class Histogram:
    labels: tuple[str, ...]
    buckets: tuple[tuple[float, float], ...]
    """Upper bound, and how many values were not above it."""
    total: float


def of_result(solver: str, manifest: Manifest) -> dict[str, float]:
    """What a succeeded job adds."""
    totals: defaultdict[str, float] = defaultdict(float)
    for phase, seconds in manifest.diagnostics.seconds.items():
        _observe(totals, f"{PHASE_SECONDS}/{solver}/{phase}", seconds, SECONDS_BOUNDS)
    _observe(totals, f"{RESIDUAL}/{solver}", manifest.diagnostics.worst_relative_residual, RESIDUAL_BOUNDS)
    for use in manifest.diagnostics.cache.values():
        totals[CACHE_HITS] += use.hit_rows
        totals[CACHE_ROWS] += use.rows
    return dict(totals)


def labelled(totals: Mapping[str, float], name: str) -> Iterator[tuple[tuple[str, ...], float]]:
    """Labels and value of every total called ``name``."""
    for key, value in sorted(totals.items()):
        kind, *labels = key.split("/")
        if kind == name:
            yield tuple(labels), value


def histograms(totals: Mapping[str, float], name: str, bounds: Sequence[float]) -> Iterator[Histogram]:
    """Every histogram called ``name``, its buckets cumulative."""
    found = dict(labelled(totals, name))
    for labels in sorted({labels[:-1] for labels in found}):
        seen, buckets = 0.0, []
        for bound in bounds:
            seen += found.get((*labels, repr(bound)), 0)
            buckets.append((bound, seen))
        yield Histogram(labels, tuple(buckets), found[(*labels, "sum")])


def _observe(totals: defaultdict[str, float], name: str, value: float, bounds: Sequence[float]) -> None:
    totals[f"{name}/{bounds[bisect_left(bounds, value)]!r}"] += 1
    totals[f"{name}/sum"] += value
