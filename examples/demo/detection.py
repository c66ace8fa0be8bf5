"""How well a ranking finds the rows whose labels were flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sklearn.metrics import roc_auc_score

from ascribe.result import ScoredRow


@dataclass(frozen=True, slots=True)
class Detection:
    """``found[i]`` is the share of the flipped rows among the ``i`` most suspicious ones."""

    auc: float
    found: tuple[float, ...]

    def found_after(self, share: float) -> float:
        """Share of the flipped rows found after inspecting this share of all rows."""
        return self.found[round(share * (len(self.found) - 1))]


def detect(suspicion: Mapping[str, float], flipped: frozenset[str]) -> Detection:
    """Rank rows by ``suspicion``, highest first; ties by id, so that the same scores give the same curve."""
    ranked = sorted(suspicion, key=lambda row: (-suspicion[row], row))
    found, hits = [0.0], 0
    for row in ranked:
        hits += row in flipped
        found.append(hits / len(flipped))
    auc = float(roc_auc_score([row in flipped for row in ranked], [suspicion[row] for row in ranked]))
    return Detection(auc, tuple(found))


def by_opposition(scores: Sequence[ScoredRow]) -> dict[str, float]:
    """A wrong label works against the validation rows: the most negative influence is the most suspicious."""
    return {row.id: -row.score for row in scores}


def by_value(scores: Sequence[ScoredRow]) -> dict[str, float]:
    """The highest value is the most suspicious: training loss, self-influence."""
    return {row.id: row.score for row in scores}
