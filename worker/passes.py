"""Every pass over a job's rows: as a phase of its own, so that it is seen, timed and cancelled, and shared where others
have time for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ascribe.job import Phase
from worker.curvature.gfim import ShardSums
from worker.data import Batch, make_batches
from worker.gradients.cache import Gradients
from worker.gradients.cotangents import Cotangent
from worker.gradients.factors import KroneckerFactors, collect_factors
from worker.models import LoadedModel
from worker.pieces import Pieces
from worker.progress import Reporter
from worker.recomputed import Recomputed
from worker.scores.influence import score_shard
from worker.shards import Shards
from worker.sharing import Crew, complete


@dataclass
class SharedPasses:
    """``rows_by``: how many rows' gradients each worker has computed for this job so far."""

    pieces: Pieces
    reporter: Reporter
    crew: Crew
    rows_by: Counter[str] = field(default_factory=Counter)
    _recomputed: Recomputed | None = None

    @property
    def classes(self) -> int:
        return self.pieces.inputs.checkpoint.num_labels

    @property
    def examples(self) -> int:
        return len(self.pieces.inputs.train)

    def both_datasets(self) -> tuple[Gradients, Gradients]:
        """Gradients of the loss, of the train and of the validation rows. Raises NonFinite, StorageFailed."""
        train, validation = self.pieces.gradients("train"), self.pieces.gradients("validation")
        if self.pieces.spec.gradients == "recomputed":
            with self.reporter.phase(Phase.CACHING_GRADIENTS, train.rows + validation.rows):
                self._complete(validation)
                matrices = self.pieces.spec.curvature.kind != "none"
                self._recomputed = Recomputed(train, self.pieces.inputs.checkpoint.blocks, matrices=matrices)
            return self._recomputed, Gradients(validation)
        with self.reporter.phase(Phase.CACHING_GRADIENTS, train.rows + validation.rows):
            self.rows_by.update(self._complete(train, validation))
            both = Gradients(train), Gradients(validation)
            if train.store.shared and not self.crew.has_company():
                # All of them will be read here: now, before less needful things take the room.
                for gradients in both:
                    list(gradients.shards)
        return both

    def by_token(self) -> Gradients | None:
        """Of the validation rows' targets, row after row; None: they are not scored."""
        if not self.pieces.inputs.tokens:
            return None
        kept = self.pieces.token_gradients()
        with self.reporter.phase(Phase.CACHING_GRADIENTS, kept.rows):
            self._complete(kept)
        return Gradients(kept)

    def gradients(self, of: Cotangent) -> Gradients:
        """Cached gradients of the train rows. Raises NonFinite, StorageFailed."""
        kept = self.pieces.gradients("train", of)
        with self.reporter.phase(Phase.CACHING_GRADIENTS, self.examples):
            self.rows_by.update(self._complete(kept))
        return Gradients(kept)

    def take_summed(self, index: int) -> ShardSums | None:
        """Of a block, over all train rows, where their gradients are not kept; to be asked for once."""
        return None if self._recomputed is None else self._recomputed.take_sums(index)

    def sums(self) -> Shards | None:
        """A dense GFIM's sums of every shard, from the store; None: nobody is there to sum some of them.

        Raises StorageFailed.
        """
        sums = self.pieces.sums()
        if sums is None or not self._is_worth_sharing(sums):
            return None
        with self.reporter.phase(Phase.BUILDING_CURVATURE, self.examples):
            self._complete(sums)
        return sums

    def scores(self, train: Gradients, sides: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
        """Of every shard of the train rows in order, a ``score_Qn`` for each of ``sides``, ``[Q, P]``.

        Shared unless the sides are as large as the gradients: every worker reads them all.

        Raises:
            NonFinite, StorageFailed.
        """
        small = 2 * sum(side_QP.nbytes for side_QP in sides) <= train.rows * sides[0].shape[1] * train.loss_N.itemsize
        with self.reporter.phase(Phase.SCORING, train.rows):
            if small and self._recomputed is None and self._is_worth_sharing(train.kept):
                kept = self.pieces.scores(sides)
                self._complete(kept)
                for span in kept.of.spans:
                    yield [kept.tensor(span, str(place)) for place in range(len(sides))]
            else:
                for grad_nP in train.shards:
                    yield score_shard(grad_nP, sides)
                    if self._recomputed is None:  # else it was told batch by batch
                        self.reporter.advance(len(grad_nP))

    def factors(self, of: Sequence[Cotangent]) -> list[KroneckerFactors]:
        """Of every block, in order; by this worker alone."""
        pieces = self.pieces
        with self.reporter.phase(Phase.CACHING_GRADIENTS, self.examples):
            return collect_factors(
                pieces.inputs.train,
                pieces.inputs.checkpoint,
                pieces.load(),
                max_length=pieces.spec.model.max_length,
                settings=pieces.settings,
                on_rows=self.reporter.advance,
                of=of,
            )

    def batches(self) -> tuple[LoadedModel, list[Batch]]:
        """The model, and all train rows as it takes them."""
        pieces, loaded = self.pieces, self.pieces.load()
        batches = make_batches(
            pieces.inputs.train, 0, self.examples, loaded.tokenizer,
            max_length=pieces.spec.model.max_length, token_budget=pieces.settings.token_budget,
            device=pieces.settings.device,
        )  # fmt: skip
        return loaded, batches

    def _is_worth_sharing(self, shards: Shards) -> bool:
        return len(shards.of.spans) > 1 and self.crew.has_company()

    def _complete(self, *shards: Shards) -> Counter[str]:
        return complete(shards, self.crew, lambda rows, found: self.reporter.advance(rows, found=found))
