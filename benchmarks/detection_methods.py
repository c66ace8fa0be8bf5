"""The rankings that are compared, each as what it adds to a job's spec: a new one is one line of the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ascribe.result import MEAN, SELF_INFLUENCE, TRAIN_LOSS


@dataclass(frozen=True, slots=True)
class Method:
    """``vector`` of the job that ``spec`` makes ranks the rows.

    The mean score over clean validation rows is lowest for the most suspicious; any other vector is highest for them.
    ``published`` are the settings of the papers' code, which the default is to be held against.
    """

    name: str
    spec: Mapping[str, Any]
    vector: str = MEAN
    published: bool = False

    def suspicion(self, value: float) -> float:
        return -value if self.vector == MEAN else value


def _spec(
    curvature: str, solver: str, relative: float | None = None, *, largest: float | None = None, **options: Any
) -> dict[str, Any]:
    damping: dict[str, Any] = {}
    if relative is not None:
        damping = {"damping": {"relative": relative}}
    if largest is not None:
        damping = {"damping": {"relative_to_largest": largest}}
    return {"curvature": {"kind": curvature}, "solver": {"kind": solver} | options} | damping


PLAIN = _spec("none", "identity")
DEFAULT = Method("gfim + schulz, default", _spec("gfim", "schulz"))
LOSS = Method("training loss", PLAIN, vector=TRAIN_LOSS)
METHODS = (
    DEFAULT,
    *(Method(f"gfim + schulz, damping {x:g}", _spec("gfim", "schulz", x)) for x in (0.01, 0.1, 10.0)),
    *(
        Method(f"gfim_unnormalized + schulz, damping {x:g}", _spec("gfim_unnormalized", "schulz", x))
        for x in (0.01, 0.1, 1.0, 10.0)
    ),
    Method("empirical_fisher + cholesky, damping 0.1", _spec("empirical_fisher", "cholesky", 0.1)),
    Method("empirical_fisher + lissa", _spec("empirical_fisher", "lissa")),
    Method("gauss_newton + cholesky", _spec("gauss_newton", "cholesky")),
    Method("gauss_newton + cholesky, 0.05 of the largest", _spec("gauss_newton", "cholesky", largest=0.05)),
    Method("gauss_newton + cholesky, damping 0.1", _spec("gauss_newton", "cholesky", 0.1)),
    Method("gauss_newton + lissa", _spec("gauss_newton", "lissa")),
    Method("ekfac + eigenbasis", _spec("ekfac", "eigenbasis")),
    Method("ekfac + eigenbasis, damping 10", _spec("ekfac", "eigenbasis", 10.0)),
    # HyperINF's released code: GFIM without the 1/R, DataInf's damping, 30 steps from 5e-5 I and 1e-3 added once more.
    Method(
        "HyperINF as published",
        _spec("gfim_unnormalized", "schulz", 0.1, start="published", iterations=30),
        published=True,
    ),
    # DataInf's released code: a tenth of the mean squared gradient entry of the block.
    Method("DataInf as published", _spec("empirical_fisher", "datainf", 0.1), published=True),
    Method("plain gradient product", PLAIN),
    Method(
        "self-influence (gfim + cholesky, damping 0.1)",
        _spec("gfim", "cholesky", 0.1) | {"output": {"self_influence": True}},
        vector=SELF_INFLUENCE,
    ),
    LOSS,
)
