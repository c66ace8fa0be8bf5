"""What a machine does in a second."""

from __future__ import annotations

from dataclasses import dataclass

# Columns at which a product reaches half of its rate; a single one runs at the speed of memory,
# which is so many times as fast when it is only read.
_NARROW = 50
_READING = 2


@dataclass(frozen=True)
class Rates:
    """Rates of one process with the threads it runs on."""

    float64_flops: float
    """Of a large matrix product, a second."""
    float32_flops: float
    bytes_per_second: float
    """Read and written, of arrays too large for the caches."""
    model_rows_per_second: float
    """Examples through one product of the model's Gauss-Newton Hessian with one vector."""

    def product64(self, rows: int, inner: int, columns: int) -> float:
        """Seconds of ``[rows, inner] @ [inner, columns]`` in float64: of the arithmetic, or of the memory."""
        if columns == 1:
            return 8 * rows * inner / self.bytes_per_second / _READING
        moved = 8 * (rows * inner + inner * columns + rows * columns) / self.bytes_per_second
        narrowest = min(rows, inner, columns)
        return max(2 * rows * inner * columns / self.float64_flops * (1 + _NARROW / narrowest), moved)


CPU = Rates(float64_flops=4.5e10, float32_flops=9e10, bytes_per_second=2.5e10, model_rows_per_second=50)
"""One thread of a server's processor: what plans are made with, so that the same spec has the same plan everywhere."""
