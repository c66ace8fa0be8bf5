"""Scores of every train row at every damping, and how far rankings agree: along the path, and without an inverse."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ascribe.result import InverseRole, PathPoint
from ascribe.spec import JobSpec
from worker.blocks import SolvedBlocks
from worker.describe import worst_of
from worker.scores.agreement import median_spearman, spearman

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Scored:
    """Each ``score_QN`` float32 has a row a question, the mean over the validation rows last.

    ``values``: one at each value of the damping path. ``plain_QN`` and ``without_top_QN`` are there where the role of
    the inverse was asked for.
    """

    values: tuple[Tensor, ...]
    plain_QN: Tensor | None
    without_top_QN: Tensor | None


def score_rows(solved: SolvedBlocks, score: Callable[[Sequence[Tensor]], Iterable[Sequence[Tensor]]]) -> Scored:
    """``score`` gives of every shard of train gradients, in order, a ``score_Qn`` for each of the sides it is handed.

    Raises:
        NonFinite: from ``score``.
    """
    sides_QP = [value.ihvp_QP for value in solved.values]
    if solved.without_top_QP is not None:
        sides_QP += [solved.grad_QP, solved.without_top_QP]
    scores = [torch.cat(parts, dim=1) for parts in zip(*score(sides_QP), strict=True)]
    if solved.without_top_QP is None:
        return Scored(tuple(scores), None, None)
    *values, plain_QN, without_top_QN = scores
    # Where the directions are all that there is, the rest is rounding: it would be ranked like anything else.
    left_Q1 = without_top_QN.abs().amax(dim=1, keepdim=True) > _ROUNDING * plain_QN.abs().amax(dim=1, keepdim=True)
    return Scored(tuple(values), plain_QN, without_top_QN.where(left_Q1, torch.zeros(())))


def damping_path(spec: JobSpec, solved: SolvedBlocks, scored: Scored) -> tuple[PathPoint, ...]:
    """Each value's solve and its mean scores' agreement with the others'; empty where there is one value alone."""
    if spec.damping is None or spec.damping_count == 1:
        return ()
    means = [score_QN[-1] for score_QN in scored.values]
    points = []
    for factor, value, mean_N in zip(spec.damping.factors, solved.values, means, strict=True):
        worst = worst_of(value.diagnostics)
        points.append(
            PathPoint(
                factor=factor,
                status=worst.status,
                worst_relative_residual=worst.relative_residual,
                largest_condition_bound=worst.condition_bound,
                iterations=worst.iterations,
                products=worst.products,
                spearman=tuple(spearman(mean_N, other_N) for other_N in means),
            )
        )
    return tuple(points)


def role_of_inverse(spec: JobSpec, scored: Scored, validation_rows: int) -> InverseRole | None:
    """How far the scores at the first damping agree with rankings that need no inverse.

    The first ``validation_rows`` questions are validation rows.
    """
    if spec.output.role_of_inverse is None or scored.plain_QN is None or scored.without_top_QN is None:
        return None
    solved_QN, plain_QN, without_QN = scored.values[0], scored.plain_QN, scored.without_top_QN
    rows = slice(0, max(1, validation_rows))  # the mean stands for itself where it is alone
    return InverseRole(
        top_directions=spec.output.role_of_inverse.top_directions,
        with_plain_product=spearman(solved_QN[-1], plain_QN[-1]),
        with_top_removed=spearman(solved_QN[-1], without_QN[-1]),
        plain_with_top_removed=spearman(plain_QN[-1], without_QN[-1]),
        rows_with_plain_product=median_spearman(solved_QN[rows], plain_QN[rows]),
        rows_with_top_removed=median_spearman(solved_QN[rows], without_QN[rows]),
    )
