"""What a job takes of memory and disk, before anything of it is loaded: counted tensor by tensor, in bytes.

    peak = libraries + model + rows + the largest of (a pass over the rows, curvature and solve, scoring)

Constants without a formula were measured, on Linux with PyTorch 2.13; ``python -m benchmarks estimate`` prints what
comes out beside what jobs then take. The estimate is of a CPU worker that finds nothing of an earlier job.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ascribe.planning import costs
from ascribe.planning.batches import Batching, Lengths
from ascribe.planning.disk import SIDECAR_BYTES, gradient_passes, state_bytes
from ascribe.planning.from_spec import problem_of
from ascribe.planning.problem import Problem
from ascribe.planning.rates import CPU
from ascribe.planning.sample import groups, held_bytes, sample_rows
from ascribe.settings import Settings
from ascribe.sources.checkpoints import Checkpoint, gradient_bytes
from ascribe.sources.model_shape import ModelShape
from ascribe.spec import GaussNewton, JobSpec

MIB = 1 << 20

# Python, torch, transformers, peft and the worker, imported: 295 MiB of its own and 103 of mapped files. The first
# batches bring more code of torch (25 MiB), compiled programs, the tokenizer, and holes in the heap.
_LIBRARIES = 398 * MIB
_FIRST_USE = 80 * MIB
_ARRANGED_BYTES = 256 * MIB  # as worker.gradients.onednn has it
_SLAB_BYTES = 2 * 32 * MIB  # rows read for a product, float64, and the copy that they are made of
_TANGENTS, _TANGENT_BYTES = 8, 256 * MIB  # as worker.curvature.jacobian has them
_TEMPORARY = 1.15  # of activations: what a layer computes and does not keep
_LOGITS = 3  # a language model's, their cotangent and what goes back from it; float64 is for a few at a time
_ROW_BYTES = 1500  # a row's id, texts and label as Python objects, and as they go into the result


@dataclass(frozen=True)
class Estimate:
    """All in bytes.

    Attributes:
        peak: of the resident size, with the gradient files that are mapped while they are read. The system takes those
            back where memory is short.
        needed: of memory that is the process's own, model included.
        least: the same with batches of one row: what no smaller batch would help against.
        disk: files in the cache.
        parts: of all these, by what they are. Phases follow one another, so that they are no sum.
    """

    peak: int
    needed: int
    least: int
    disk: int
    parts: Mapping[str, int]


@dataclass(frozen=True)
class _Job:
    spec: JobSpec
    checkpoint: Checkpoint
    train: Lengths
    validation: Lengths
    batching: Batching
    settings: Settings

    @property
    def dtype_bytes(self) -> int:
        return {"float64": 8, "float32": 4, "bfloat16": 2}[self.spec.model.dtype]

    @property
    def shape(self) -> ModelShape:
        return self.checkpoint.shape

    @property
    def tokens(self) -> int:
        """That are scored."""
        return self.validation.targets if self.spec.output.per_token else 0

    @property
    def columns(self) -> int:
        return self.validation.rows + self.tokens + 1 if self.spec.output.per_validation_row else 1

    @cached_property
    def problem(self) -> Problem:
        return problem_of(
            self.spec,
            self.checkpoint.blocks,
            train_rows=self.train.rows,
            questions=self.validation.rows + self.tokens,
            classes=self.checkpoint.num_labels,
            settings=self.settings,
        )

    def model(self) -> int:
        """The weights, and copies of them in the order in which oneDNN reads them: one for each direction."""
        arranged = 0
        if self.spec.model.dtype == "float32":
            dense = self.shape.layers * self.shape.layer_weights
            dense += self.checkpoint.num_labels * self.shape.hidden  # what leads to the logits
            arranged = min(2 * 4 * dense, _ARRANGED_BYTES)
        return self.dtype_bytes * self.shape.weights + arranged

    def batch(self, tokens: int, rows: int) -> int:
        """Activations of a batch of ``rows`` rows and ``tokens`` padded tokens, its gradients, and its logits."""
        # Of the selected layers, kept as they come; LoRA's first matrix gives as many as its rank.
        outputs = sum(b.rank if ".lora_A." in b.name else b.long_side for b in self.checkpoint.blocks)
        kept = self.shape.layers * self.shape.activations + outputs
        inside = 4 * self.shape.inner
        if self.batching.attention == "eager" or self.runs_products:
            # Scores and weights of every pair of tokens.
            kept += 2 * self.shape.layers * self.shape.heads * (tokens // rows)
        if self.runs_products:
            inside += self.tangents * (6 * self.shape.hidden + 3 * self.shape.inner)
        activations = int(_TEMPORARY * tokens * (kept + inside) * self.dtype_bytes)
        gradients = self.checkpoint.parameters + max(block.size for block in self.checkpoint.blocks)
        return activations + self._logits(tokens) + 4 * rows * gradients

    def _logits(self, tokens: int) -> int:
        share = max(self.train.target_share, self.validation.target_share)  # a classifier's is a row's, and nothing
        targets = math.ceil(tokens * share)
        classes = self.checkpoint.num_labels
        logits = _LOGITS * self.dtype_bytes * targets * classes
        if self.runs_products:
            # Tangents in the model's precision, in float64, and the cotangents of both.
            logits += 3 * min(self.tangents * 8 * targets * classes, max(_TANGENT_BYTES, 8 * targets * classes))
        return logits

    @property
    def tangents(self) -> int:
        """Of vectors that go through the model at once; a sketch is so many products more."""
        sketch = costs.cg_sketch(self.problem.systems()[0], self.problem) if self.spec.solver.kind == "cg" else 0
        return min(_TANGENTS, self.columns + sketch)

    @property
    def runs_products(self) -> bool:
        return isinstance(self.spec.curvature, GaussNewton) and not self.problem.rows_cached

    def shard(self) -> int:
        rows = min(max(self.train.rows, self.validation.rows, self.tokens), self.batching.shard_rows)
        return 4 * rows * self.checkpoint.parameters

    def sample(self) -> int:
        """Whole gradients, by which a projection is measured."""
        if self.spec.parameters.projection is None:
            return 0
        rows = sum(sample_rows(self.checkpoint.whole_parameters, self.train.rows, self.validation.rows))
        return max(held_bytes(group, rows) for group in groups(self.checkpoint.blocks, rows))

    def curvature(self) -> int:
        """Of every block at once, as they wait for the solver."""
        blocks, kind = self.checkpoint.blocks, self.spec.curvature.kind
        if kind in ("gfim", "gfim_unnormalized"):
            dense = [b for b in blocks if self.train.rows * b.rank >= b.long_side]
            return sum(8 * b.long_side**2 for b in dense) + 2 * max((8 * b.long_side**2 for b in dense), default=0)
        if kind in ("kfac", "ekfac") or self.spec.solver.kind == "astra":
            return sum(8 * 2 * (b.long_side**2 + b.rank**2) + 8 * b.size for b in blocks)
        return 0

    def right_hand_sides(self) -> int:
        """Validation gradients and a solution for every value of damping, float64; or while they are read."""
        entries = self.checkpoint.parameters * self.columns
        role = 8 * entries if self.spec.output.role_of_inverse else 0
        scoring = 4 * entries
        return max(20 * entries, 8 * entries * (1 + self.spec.damping_count) + role + scoring)

    def solver(self) -> int:
        """On top of the curvature and the right-hand sides, for the largest block."""
        estimate = {
            "cholesky": costs.cholesky,
            "schulz": costs.schulz,
            "cg": costs.cg,
            "lissa": costs.lissa,
            "eigenbasis": costs.eigenbasis,
        }.get(self.spec.solver.kind)
        if estimate is None:
            return _SLAB_BYTES
        return _SLAB_BYTES + max(estimate(system, self.problem, CPU).bytes for system in self.problem.systems())

    def rows(self) -> int:
        """Texts, and scores as they are computed and as they are handed on."""
        texts = sum(_ROW_BYTES * of.rows + 3 * of.characters for of in (self.train, self.validation))
        return texts + 2 * 4 * self.train.rows * self.columns * self.spec.damping_count

    def mapped(self) -> int:
        """Gradient files, which are all read once."""
        return gradient_bytes(self.gradient_rows(), self.checkpoint)

    def gradient_rows(self) -> int:
        """Gradients that are kept in files."""
        train = gradient_passes(self.spec, self.checkpoint, cached_rows=self.problem.rows_cached) * self.train.rows
        return train + self.validation.rows + self.tokens

    def disk(self) -> int:
        return self.mapped() + SIDECAR_BYTES * self.gradient_rows() + state_bytes(self.spec, self.problem)


def estimate(
    spec: JobSpec,
    checkpoint: Checkpoint,
    train: Lengths,
    validation: Lengths,
    *,
    batching: Batching,
    settings: Settings,
) -> Estimate:
    """Of a job whose solver has a name; what ``auto`` will take is not counted."""
    job = _Job(spec, checkpoint, train, validation, batching, settings)
    steady = {"libraries": _LIBRARIES + _FIRST_USE, "model": job.model(), "rows and scores": job.rows()}
    sizes = [of.largest_batch(batching) for of in (job.train, job.validation)]
    batch = max(job.batch(tokens, rows) for tokens, rows in sizes)
    one_row = job.batch(max(job.train.longest, job.validation.longest), 1)
    curvature, sides, solver = job.curvature(), job.right_hand_sides(), job.solver()
    # Products with the model are taken in the middle of a solve.
    again, again_one = (batch, one_row) if job.runs_products else (0, 0)
    base = sum(steady.values())
    solving = curvature + sides + solver
    sample = job.sample()
    first, last, last_one = curvature + batch, 0, 0
    if (
        spec.gradients == "recomputed"
    ):  # sums of all blocks grow while shards are made, and scores are of shards made anew
        first = curvature + job.shard() + batch
        last, last_one = (sides + job.shard() + each for each in (batch, one_row))
    return Estimate(
        peak=base + max(job.shard() + batch, sample + batch, first, last, solving + again + job.mapped()),
        needed=base + max(job.shard() + batch, sample + batch, first, last, solving + again),
        least=base + max(job.shard() + one_row, curvature + one_row, last_one, solving + again_one),
        disk=job.disk(),
        parts={
            **steady,
            "batch": batch,
            "one row": one_row,
            "shard of gradients": job.shard(),
            **({"sample of whole gradients": sample} if sample else {}),
            "curvature": curvature,
            "right-hand sides": sides,
            "solver": solver,
            "mapped gradient files": job.mapped(),
        },
    )
