"""Batches that fit: one for which memory runs out is halved and gone on with, and later ones start no larger.

Rows in other batches round otherwise, by some 1e-7: two workers have equal bits as long as neither ran out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from ascribe.errors import OutOfMemory, Problem
from worker import memory
from worker.data import Batch

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass
class BatchFit:
    """What this process has learned of one loaded model.

    ``tokens``: padded tokens of the largest batch that may be tried, None as long as all fitted. ``halved`` counts the
    batches that were halved for it so far.
    """

    tokens: int | None = None
    halved: int = 0

    def run(self, batch: Batch, work: Callable[[Batch], T], keep: Callable[[Batch, T], None]) -> None:
        """``work`` on ``batch``, or on parts of it, and ``keep`` what comes of each, the rows in their order.

        ``work`` may run out of memory and must leave nothing behind then but what a later try overwrites.

        Raises:
            OutOfMemory: a single row does not fit.
        """
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            if self._is_known_not_to_fit(part) or not self._done(part, work, keep):
                self.halved += 1
                middle = len(part.positions) // 2
                waiting += [part.rows(middle, len(part.positions)), part.rows(0, middle)]

    def warnings(self, halved_before: int) -> tuple[str, ...]:
        """For a job that began when so many batches had been halved."""
        if self.halved == halved_before:
            return ()
        return (
            f"memory ran out: batches were halved to at most {self.tokens} padded tokens. Scores may differ in their "
            "last digits from those of a worker with room for more; a smaller ASCRIBE_TOKEN_BUDGET saves the attempts",
        )

    def _is_known_not_to_fit(self, part: Batch) -> bool:
        return self.tokens is not None and part.tokens > self.tokens and len(part.positions) > 1

    def _done(self, part: Batch, work: Callable[[Batch], T], keep: Callable[[Batch, T], None]) -> bool:
        try:
            made = work(part)
        except (MemoryError, RuntimeError) as error:
            if not memory.ran_out(error):
                raise
            if len(part.positions) == 1:
                raise _one_row(part) from error
        else:
            keep(part, made)
            return True
        # Out of the handler, whose traceback holds on to the tensors of the attempt.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        memory.give_back()
        self.tokens = part.tokens // 2
        log.warning("memory ran out: batches are halved", extra={"tokens": self.tokens})
        return False


def _one_row(row: Batch) -> OutOfMemory:
    message = (
        f"a single row of {row.tokens} tokens does not fit into memory: lower max_length, take dtype bfloat16, select "
        "fewer parameters, or give the worker more memory"
    )
    return OutOfMemory(message, errors=[Problem("/model/max_length", OutOfMemory.code, message)])
