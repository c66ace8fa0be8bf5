"""What must be known of a matrix before a solver starts, from a few products: see :func:`measure`."""

from worker.spectrum.lanczos import RitzValue, lanczos, largest_eigenvalue, top
from worker.spectrum.measure import BATCH_FACTOR, Spectrum, measure

__all__ = ["BATCH_FACTOR", "RitzValue", "Spectrum", "lanczos", "largest_eigenvalue", "measure", "top"]
