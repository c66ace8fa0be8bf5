"""What every solver of ``A x = v`` is: a frozen record of hyper-parameters with ``init`` and ``compute``.

``init`` does once what depends on the operator alone; ``compute`` may then be called for any number of right-hand
sides. A solver reports what it did and what it ran into. Whether that was good enough is not for it to say: see
:func:`worker.solvers.solve.solve`, which measures.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from torch import Tensor

from ascribe.status import SolveStatus
from worker.operators import Damped, LinearOperator
from worker.saved import Saved

StateT = TypeVar("StateT")
OperatorT = TypeVar("OperatorT", bound=LinearOperator)


@dataclass(frozen=True)
class Stats:
    """What a solve did."""

    iterations: int
    products: int
    """Products with the whole ``P x P`` operator; sampled ones count by their share of the examples, rounded up."""
    condition_bound: float | None
    precision: str
    inverse_residual_bound: float | None = None
    """``||I - A X||_F`` for an explicit inverse ``X``: no column ``X v`` has a larger relative residual."""
    plan: Mapping[str, float | int] | None = None
    notes: tuple[str, ...] = ()
    """Warnings in words."""


class Solver(ABC, Generic[StateT]):
    """Solves ``A x = v``. Subclasses are final frozen dataclasses, validated when they are built."""

    @property
    @abstractmethod
    def tolerance(self) -> float:
        """The largest relative residual of a column that counts as converged."""

    @abstractmethod
    def check(self, operator: Damped) -> None:
        """Refuse what ``init`` would refuse, before anything large is computed.

        Raises:
            TypeError: if the operator is not of a kind that the solver takes.
            LimitExceeded, PlanExceedsSteps: where a solver has such a limit.
        """

    @abstractmethod
    def init(self, operator: Damped) -> StateT:
        """What depends on the operator alone: a factor, an inverse, a plan. Raises what :meth:`check` raises."""

    def init_all(self, operators: Iterable[Damped]) -> Iterator[StateT]:
        """The states of many operators, in order; on a CPU each with the bits that :meth:`init` gives it.

        A solver that prepares several at once takes no more of them ahead than its memory budget holds.
        """
        return map(self.init, operators)

    @abstractmethod
    def compute(self, state: StateT, rhs_PK: Tensor) -> tuple[Tensor, SolveStatus, Stats]:
        """Solutions ``[P, K]`` in float64 for finite right-hand sides ``[P, K]``.

        ``CONVERGED`` means no more than that nothing broke down; any other status is the solver's own knowledge.
        """

    def quadratic(self, state: StateT, rhs_PK: Tensor) -> Tensor:
        """``v^T A^-1 v`` for each column, ``[K]``, float64."""
        return (rhs_PK * self.compute(state, rhs_PK)[0]).sum(dim=0)


class Reusable(Solver[StateT]):
    """A solver whose ``init`` is worth keeping: a later job on the same operator starts from its state."""

    keeps: ClassVar[str]
    """What that state is, in words."""

    @abstractmethod
    def save(self, state: StateT) -> Saved:
        """All of a usable state that does not follow from the operator at little cost."""

    @abstractmethod
    def load(self, operator: Damped, saved: Saved) -> StateT:
        """The state that :meth:`save` was given, to the last bit. Raises TypeError as :meth:`check` does."""


class WarmStarting(Reusable[StateT]):
    """A solver whose ``init`` costs less with the state of a related operator at hand."""

    @abstractmethod
    def init_from(self, operator: Damped, earlier: StateT) -> StateT:
        """A state as good as that of :meth:`init`, from that of the same curvature under another damping (the very
        object, ``earlier.operator.operator is operator.operator``) or of an earlier curvature of the same block.

        Where ``earlier`` is of no use the start is a cold one; the stats say which it was.
        """


def require(operator: Damped, kind: type[OperatorT]) -> OperatorT:
    """The matrix under the damping, of the kind that a solver needs.

    Raises:
        TypeError: if it is of another kind.
    """
    if not isinstance(operator.operator, kind):
        raise TypeError(f"this solver takes a {kind.__name__}, not a {type(operator.operator).__name__}")
    return operator.operator
