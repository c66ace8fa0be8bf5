"""What a curvature may ask of the train rows beyond the gradients of their loss: more passes over the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ascribe.job import Phase
from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from worker.data import Batch, make_batches
from worker.gradients.cache import Gradients
from worker.gradients.cotangents import Cotangent
from worker.gradients.factors import KroneckerFactors, collect_factors
from worker.inputs import Inputs
from worker.models import LoadedModel
from worker.progress import Reporter


@dataclass(frozen=True)
class TrainPasses:
    """Each pass is a phase of its own, so that it is seen, timed and cancelled like the first one.

    ``collect`` gives cached gradients of the train rows, of the cotangent it is told.
    """

    spec: JobSpec
    inputs: Inputs
    settings: WorkerSettings
    reporter: Reporter
    load: Callable[[], LoadedModel]
    collect: Callable[[Cotangent], Gradients]

    @property
    def classes(self) -> int:
        return self.inputs.checkpoint.num_labels

    @property
    def examples(self) -> int:
        return len(self.inputs.train)

    def gradients(self, of: Cotangent) -> Gradients:
        """Raises NonFinite, StorageFailed."""
        with self.reporter.phase(Phase.CACHING_GRADIENTS, self.examples):
            return self.collect(of)

    def factors(self, of: Sequence[Cotangent]) -> list[KroneckerFactors]:
        """Of every block, in order."""
        with self.reporter.phase(Phase.CACHING_GRADIENTS, self.examples):
            return collect_factors(
                self.inputs.train,
                self.inputs.checkpoint,
                self.load(),
                max_length=self.spec.model.max_length,
                settings=self.settings,
                on_rows=self.reporter.advance,
                of=of,
            )

    def batches(self) -> tuple[LoadedModel, list[Batch]]:
        """The model, and all rows as it takes them."""
        loaded = self.load()
        batches = make_batches(
            self.inputs.train, 0, self.examples, loaded.tokenizer,
            max_length=self.spec.model.max_length, token_budget=self.settings.token_budget, device=self.settings.device,
        )  # fmt: skip
        return loaded, batches
