"""One look at a spectrum: what the result says of it, what the report draws, what a plan is made from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Generator

from worker.operators import LinearOperator, SampledOperator
from worker.spectrum.batch_variance import batch_variance
from worker.spectrum.lanczos import lanczos
from worker.spectrum.sketch import sketch, whole

# Examples in a batch as a multiple of tr C / lambda_max: what LiSSA takes where nothing else is said.
BATCH_FACTOR = 4
_LANCZOS_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Spectrum:
    """Estimates, each with its error; exact where the error is 0.

    ``top_values`` are the eigenvalues that stand out of the sketch, descending, each within ``top_error`` (in about 95
    of 100 sketches); the rest is zero to within it. ``largest`` never exceeds the largest eigenvalue, and an eigenvalue
    lies within ``largest_residual`` of it. ``batch_variance`` is ``Tr(E[C_B^2] - C^2)`` for drawn batches of
    ``batch_size``; ``None`` where the matrix cannot be sampled, or is zero.
    """

    size: int
    trace: float
    trace_standard_error: float
    largest: float
    largest_residual: float
    top_values: tuple[float, ...]
    top_error: float
    batch_size: int | None
    batch_variance: float | None
    batch_variance_standard_error: float | None
    products: int
    """Products with the whole matrix that all this took; sampled ones count by their share of the examples."""

    @property
    def noise_constant(self) -> float | None:
        """What the measured variance has for ``tr C`` in ``(tr C / |B|) C``, on average over directions."""
        if self.batch_size is None or self.batch_variance is None or self.trace == 0:
            return None
        return self.batch_variance * self.batch_size / self.trace


def measure(
    operator: LinearOperator, generator: Generator, *, columns: int = 32, batch_size: int | None = None, pairs: int = 8
) -> Spectrum:
    """Measure ``C`` with about ``columns`` products and a dozen of Lanczos.

    Args:
        operator: the matrix, without damping.
        generator: draws probes and batches.
        columns: width of the sketch; its error falls like ``1 / sqrt(columns)``. A matrix no larger is taken whole.
        batch_size: of the batches whose variance is measured; by default the one LiSSA would choose.
        pairs: how many pairs of them.
    """
    if columns < 2 or pairs < 2:
        raise ValueError("a standard error needs at least two columns and two pairs")
    if operator.size <= columns:
        found = whole(operator)
        largest, residual, products = found.top_values[0], 0.0, found.products
    else:
        ritz = lanczos(operator, generator, _LANCZOS_TOLERANCE)
        found = sketch(operator, generator, columns, ritz)
        largest, residual, products = ritz.value, ritz.residual, ritz.products + found.products
    variance = error = None
    if isinstance(operator, SampledOperator) and largest > 0:
        batch_size = min(operator.count, batch_size or math.ceil(BATCH_FACTOR * found.trace / largest))
        variance, error = batch_variance(operator, generator, batch_size, pairs)
        products += math.ceil(2 * pairs * batch_size / operator.count)
    else:
        batch_size = None
    return Spectrum(
        size=operator.size,
        trace=found.trace,
        trace_standard_error=found.trace_standard_error,
        largest=largest,
        largest_residual=residual,
        top_values=found.top_values,
        top_error=found.top_error,
        batch_size=batch_size,
        batch_variance=variance,
        batch_variance_standard_error=error,
        products=products,
    )
