"""What of a job's work falls into shards: gradients of both datasets, their sums, scores.

The worker that owns the job and those that help it find the same pieces under the same names, each from the spec and
its own files. A name ends with the fingerprint of all that decides the bits of what it stands for, so a helper to whom
a name means something else knows it before it computes anything.

    gradients:train:loss:<gradient fingerprint>:00003
    sums:<gradient fingerprint>:00003
    scores:<scoring fingerprint>:00003
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from ascribe.errors import StorageFailed
from ascribe.fingerprint import scoring_fingerprint
from ascribe.settings import WorkerSettings
from ascribe.sources.rows import Rows
from ascribe.spec import JobSpec
from ascribe.store import Store
from worker.curvatures.from_gradients import sums_pass
from worker.environment import OtherInputs
from worker.gradients.collect import gradient_pass
from worker.gradients.cotangents import Cotangent, OfLoss, OfTarget, cotangent_of
from worker.inputs import Inputs, fingerprint_of
from worker.models import LoadedModel
from worker.saved import Saved
from worker.scores.influence import score_shard
from worker.shards import Pass, Shards, Span
from worker.storage import storage_errors, write_tensors

LOSS = OfLoss()
SIDES = "sides.safetensors"

Dataset = Literal["train", "validation"]


@dataclass
class Pieces:
    """Those of one job. Entries of the store stay open until ``held`` is closed.

    ``on_rows`` is told how many rows this process has computed something of; what it raises ends the work.
    """

    spec: JobSpec
    inputs: Inputs
    settings: WorkerSettings
    store: Store
    load: Callable[[], LoadedModel]
    held: ExitStack
    on_rows: Callable[[int], None]
    _opened: dict[str, Shards] = field(default_factory=dict)

    def do(self, part: str) -> None:
        """Compute a part and keep it in the store.

        Raises:
            OtherInputs: the name means nothing here.
            StorageFailed, NonFinite: and whatever else the numbers make impossible.
        """
        shards = self._named(part.rpartition(":")[0])
        span = shards and {shards.part(span): span for span in shards.of.spans}.get(part)
        if not shards or not span:
            raise OtherInputs(part)
        shards.fill(span)

    def gradients(self, dataset: Dataset, of: Cotangent = LOSS) -> Shards:
        """Per-example gradients of the train or validation rows. Raises StorageFailed."""
        return self._gradients(self._rows(dataset), dataset, of, self.gradient_fingerprint(dataset, of))

    def token_gradients(self) -> Shards:
        """Of every target of the first validation row, then of the second's, ...: its part of the row's gradient.

        Raises StorageFailed.
        """
        counts = self.inputs.token_counts
        of = OfTarget.each(counts)
        key = self.gradient_fingerprint("validation", of)
        return self._gradients(self.inputs.validation.repeated(counts), "validation", of, key)

    def _gradients(self, rows: Rows, dataset: Dataset, of: Cotangent, key: str) -> Shards:
        name = f"gradients:{dataset}:{of.key}:{key}"

        def make() -> Pass:
            return gradient_pass(
                rows,
                self.inputs.checkpoint,
                self.load,
                name=name,
                folder=self._entry("gradients", key),
                max_length=self.spec.model.max_length,
                settings=self.settings,
                pointer=f"/{dataset}",
                on_rows=self.on_rows,
                of=of,
            )

        return self._once(name, make)

    def gradient_fingerprint(self, dataset: Dataset, of: Cotangent = LOSS) -> str:
        return fingerprint_of(self._rows(dataset), self.inputs, self.spec, self.settings, of.key)

    def _rows(self, dataset: Dataset) -> Rows:
        return self.inputs.train if dataset == "train" else self.inputs.validation

    def sums(self) -> Shards | None:
        """Of the train gradients, for a dense GFIM; None where they are not worth keeping. Raises StorageFailed."""
        key = self.gradient_fingerprint("train")
        name = f"sums:{key}"
        # Beside the gradients, which they come and go with.
        of = sums_pass(
            self.gradients("train"), self.inputs.checkpoint.blocks, name=name, folder=self._entry("gradients", key)
        )
        return None if of is None else self._once(name, lambda: self._counted(of))

    def scores(self, sides: Sequence[Tensor]) -> Shards:
        """Of every train row by ``sides`` float64 ``[Q, P]``, which are left in the store for whoever helps.

        Raises:
            StorageFailed: the store has no room, or fails.
        """
        digest = _digest(sides)
        key = scoring_fingerprint(gradients=self.gradient_fingerprint("train"), sides=digest)
        path = self._entry("scoring", key) / SIDES
        self.store.make_room(sum(side_QP.nbytes for side_QP in sides))
        tensors = {str(place): side_QP for place, side_QP in enumerate(sides)}
        with storage_errors():
            self.store.files.save(path, lambda temporary: write_tensors(temporary, tensors), {"sides": digest})
        return self._scores(key, sides)

    def warnings(self) -> tuple[str, ...]:
        """What was wrong with the shards that were there."""
        return tuple(warning for shards in self._opened.values() for warning in shards.warnings())

    def _named(self, name: str) -> Shards | None:
        """Raises StorageFailed."""
        found: Shards | None = None
        match name.split(":"):
            case ["gradients", "validation", OfTarget.key, _]:
                found = self.token_gradients()
            case ["gradients", "train" | "validation" as dataset, of, _]:
                found = self.gradients(dataset, cotangent_of(of))
            case ["sums", _]:
                found = self.sums()
            case ["scores", key]:
                found = self._opened.get(name) or self._kept_scores(key)
        return found if found is not None and found.of.name == name else None

    def _kept_scores(self, key: str) -> Shards | None:
        """By the sides that the job's owner left; None: they are for other train gradients. Raises StorageFailed."""
        path = self._entry("scoring", key) / SIDES
        with storage_errors():
            facts = self.store.files.facts(path)
            if facts is None:
                raise StorageFailed("the left-hand sides of the scores are not in the store")
            # Copies of their own: aligned like those that the owner has, so that products round the same way.
            sides = [tensor.clone() for _, tensor in sorted(load_file(path).items(), key=lambda item: int(item[0]))]
        if scoring_fingerprint(gradients=self.gradient_fingerprint("train"), sides=facts["sides"]) != key:
            return None
        return self._scores(key, sides)

    def _scores(self, key: str, sides: Sequence[Tensor]) -> Shards:
        train, name = self.gradients("train"), f"scores:{key}"

        def compute(span: Span) -> Saved:
            return Saved(
                {str(n): score_Qn for n, score_Qn in enumerate(score_shard(train.tensor(span, "grad"), sides))}
            )

        def make() -> Pass:
            return self._counted(
                Pass(
                    name=name,
                    what="scores of the train",
                    folder=self._entry("scoring", key),
                    stem="scores",
                    spans=train.of.spans,
                    parameters=train.of.parameters,
                    compute=compute,
                    size=lambda span: span.rows * sum(len(side_QP) for side_QP in sides) * torch.float32.itemsize,
                )
            )

        return self._once(name, make)

    def _counted(self, of: Pass) -> Pass:
        def compute(span: Span) -> Saved:
            saved = of.compute(span)
            self.on_rows(span.rows)
            return saved

        return replace(of, compute=compute)

    def _once(self, name: str, make: Callable[[], Pass]) -> Shards:
        if name not in self._opened:
            self._opened[name] = Shards(make(), self.store)
        return self._opened[name]

    def _entry(self, kind: str, key: str) -> Path:
        return self.held.enter_context(self.store.open(kind, key))


def _digest(sides: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    for side_QP in sides:
        digest.update(str(tuple(side_QP.shape)).encode())
        digest.update(side_QP.contiguous().numpy().data)
    return digest.hexdigest()
