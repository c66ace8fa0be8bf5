"""What a large job costs: a model of operations and bytes, checked on small sizes, and many workers simulated.

Rates are fitted to two settings of rank and tokens and must foretell the others. Extrapolation is no measurement: what
a GPU does is assumed, and said to be.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.table import Table
from safetensors.torch import load_file, save_file

from ascribe.embedded.server import free_port, start_server
from ascribe.ledger.base import Policy
from ascribe.ledger.ids import new_job_id
from ascribe.ledger.redis import RedisLedger
from ascribe.settings import WorkerSettings
from ascribe.store import Store
from benchmarks.cells import Cell, cell, seen_on, table
from benchmarks.scale_model import Job, Network, Rates, seconds
from benchmarks.scale_simulation import Fleet, Outcome, Shards, simulate
from benchmarks.subject import Subject, demo_subject, load
from worker import shards as kept
from worker.curvature.block import build_block
from worker.curvatures.base import tensor_blocks
from worker.gradients.cache import Gradients
from worker.gradients.collect import gradient_pass
from worker.operators import Damped
from worker.scores.influence import influence
from worker.solvers.cholesky import Cholesky
from worker.solvers.solve import solve

MINILM = Network("MiniLM-L6", frozen=6 * 12 * 384**2, layers=6, hidden=384, adapted=((384, 384),) * 12)
LLAMA = Network("a 7B Llama", frozen=6_476_000_000, layers=32, hidden=4096, adapted=((4096, 4096),) * 64)
"""LoRA on query and value, as both papers have it."""

FITTED = ((1, 32), (32, 32))
"""(rank, tokens) that the rates are taken from."""
FORETOLD = ((8, 32), (8, 96), (64, 16))

GPU = Rates(pass_flops=4e14, entry_seconds=2e-11, sum_flops=3e13, factor_flops=1e13, score_flops=1e13, disk_bytes=1e9)
"""Assumed of an H100, not measured: 40 % of its bfloat16 peak, half of its float64 peak, 10 Gbit/s of network."""
STORE_BYTES = 1e10
"""Assumed: an object store that gives 10 GB/s to all workers together."""
_LEDGER_STEPS = 2000
LIVES = 4 * 3600.0
"""Assumed: a worker on a machine that may be taken away lives four hours."""


@dataclass(frozen=True, slots=True)
class Sizes:
    rows: int = 256
    queries: int = 16
    fitted: Sequence[tuple[int, int]] = FITTED
    foretold: Sequence[tuple[int, int]] = FORETOLD


FULL = Sizes()
QUICK = Sizes(rows=24, queries=2, fitted=((1, 8), (4, 8)), foretold=((2, 16),))


def study(folder: Path, *, quick: bool = False) -> Iterator[Table]:
    """Foretold beside measured; then the large job on 1, 8 and 64 workers."""
    sizes = QUICK if quick else FULL
    cells = {
        each: cell(folder / f"rank-{each[0]}-tokens-{each[1]}.json", partial(_measure, *each, sizes))
        for each in (*sizes.fitted, *sizes.foretold)
    }
    rates = _fit([cells[each] for each in sizes.fitted])
    yield _foretold_table(cells, sizes, rates)
    yield from large_job(folder, rates)


def _measure(rank: int, tokens: int, sizes: Sizes) -> Cell:
    """Processor seconds of each phase on MiniLM with a fresh adapter: its values do not matter to the time."""
    torch.set_num_threads(1)
    subject = demo_subject(progress=False)
    rows = subject.write_rows("scale", sizes.rows, tokens)
    with TemporaryDirectory() as scratch:
        fresh = replace(subject, adapter=_adapter(subject, rank))
        inputs, loaded, settings = load(fresh, fresh.spec(rows, rows), Path(scratch))
        encoded = loaded.tokenizer(list(inputs.train.texts))["input_ids"]
        store = Store(Path(scratch), max_bytes=None)
        with store.open("gradients", "warm") as folder:
            _collect(inputs, loaded, settings, store, folder)
        with store.open("gradients", "timed") as folder:
            started = time.process_time()
            gradients = _collect(inputs, loaded, settings, store, folder)
            caching = time.process_time() - started
            return {
                "rank": rank, "rows": sizes.rows, "queries": sizes.queries,
                "tokens": sum(map(len, encoded)) / len(encoded),
                "gradients": caching, **_after(gradients, inputs.checkpoint.blocks, sizes.queries),
            }  # fmt: skip


def _adapter(subject: Subject, rank: int) -> str:
    """The demo's adapter with matrices of another rank, drawn at random, beside it; the name below the data root."""
    name = f"scale-rank-{rank}"
    trained, made = subject.data_root / subject.adapter, subject.data_root / name
    made.mkdir(exist_ok=True)
    shutil.copyfile(trained / "config.json", made / "config.json")
    config = json.loads((trained / "adapter_config.json").read_text(encoding="utf-8"))
    (made / "adapter_config.json").write_text(json.dumps(config | {"r": rank}), encoding="utf-8")
    tensors = load_file(trained / "adapter_model.safetensors")
    generator = torch.Generator().manual_seed(rank)
    for key, tensor in tensors.items():
        if "lora_" in key:
            shape = [rank if side == config["r"] else side for side in tensor.shape]
            tensors[key] = torch.randn(shape, generator=generator) / 100
    save_file(tensors, made / "adapter_model.safetensors")
    return name


def _collect(inputs: Any, loaded: Any, settings: WorkerSettings, store: Store, folder: Path) -> Gradients:
    of = gradient_pass(
        inputs.train,
        inputs.checkpoint,
        lambda: loaded,
        name="gradients",
        folder=folder,
        max_length=256,
        settings=settings,
        pointer="/train",
        on_rows=lambda _count: None,
    )
    shards = kept.Shards(of, store)
    for span in of.spans:
        shards.fill(span)
    return Gradients(shards)


def _after(gradients: Gradients, shapes: Any, queries: int) -> dict[str, float]:
    """Seconds of GFIM's sums, of Cholesky for ``queries`` rows, and of their scores."""
    spent = {"sums": 0.0, "solve": 0.0}
    sides = []
    for block in tensor_blocks(shapes):
        chunks = gradients.block(block.columns)
        started = time.process_time()
        shape = block.shape
        built = build_block(shape.name, "gfim", chunks, shape.rank, shape.long_side)
        summed = time.process_time()
        rhs_PK = built.to_rhs(torch.cat([*chunks])[:queries].double())
        damped = Damped(built.operator, max(built.mean_squared_entry, 1e-12))
        sides.append(built.from_rhs(solve(damped, rhs_PK, Cholesky()).x_PK))
        spent["sums"] += summed - started
        spent["solve"] += time.process_time() - summed
    started = time.process_time()
    influence(gradients.shards, torch.cat(sides, dim=1), "all blocks")
    return spent | {"scores": time.process_time() - started}


def _job(found: Cell) -> Job:
    return Job(MINILM, found["rows"], found["queries"], found["rank"], round(found["tokens"]))


def _fit(fitted: Sequence[Cell]) -> Rates:
    """The two unknowns of a row's seconds from two settings; the other rates from the larger of them."""
    high = fitted[-1]
    (pass_low, entries_low), (pass_high, entries_high) = (
        (MINILM.flops(round(each["tokens"])), MINILM.entries(each["rank"])) for each in fitted
    )
    row_low, row_high = (each["gradients"] / each["rows"] for each in fitted)
    determinant = pass_low * entries_high - pass_high * entries_low
    inverse_rate = (row_low * entries_high - row_high * entries_low) / determinant
    entry_seconds = (pass_low * row_high - pass_high * row_low) / determinant
    unit = seconds(_job(high), Rates(1.0, 1.0, 1.0, 1.0, 1.0, 1.0))
    return Rates(
        pass_flops=1 / inverse_rate,
        entry_seconds=entry_seconds,
        sum_flops=unit.sums / high["sums"],
        factor_flops=unit.solve / high["solve"],
        score_flops=unit.scores / high["scores"],
        disk_bytes=float("inf"),
    )


def _foretold_table(cells: dict[tuple[int, int], Cell], sizes: Sizes, rates: Rates) -> Table:
    made = table(
        "Foretold and measured seconds",
        "rank", "tokens", "bytes a row", "gradients", "sums", "solve", "scores", "used for",
    )  # fmt: skip
    for key, found in cells.items():
        job = _job(found)
        told = seconds(job, rates)
        pairs = ((told.gradients, "gradients"), (told.sums, "sums"), (told.solve, "solve"), (told.scores, "scores"))
        made.add_row(
            str(found["rank"]),
            f"{found['tokens']:.0f}",
            f"{job.row_bytes / 1e3:.0f} KB",
            *(f"{value:.2f} / {found[name]:.2f}" for value, name in pairs),
            "the rates" if key in sizes.fitted else "a check",
        )
    made.caption = (
        f"{sizes.rows} rows, {sizes.queries} queries. Rates: pass {rates.pass_flops / 1e9:.0f} GFLOP/s, "
        f"{rates.entry_seconds * 1e9:.2f} ns a gradient entry, sums {rates.sum_flops / 1e9:.1f}, factors "
        f"{rates.factor_flops / 1e9:.1f}, scores {rates.score_flops / 1e9:.1f} GFLOP/s. {seen_on(cells.values())}"
    )
    return made


def large_job(folder: Path, measured: Rates) -> Iterator[Table]:
    """1e6 rows of 512 tokens, 100 queries, rank 8, on GPUs as assumed; and the same rows on MiniLM on these cores."""
    ledger = cell(folder / "ledger.json", _ledger_step)["seconds"]
    yield _large_table(Job(LLAMA, 1_000_000, 100, 8, 512, shard_rows=64), GPU, "one H100 (assumed)", ledger)
    yield _large_table(Job(LLAMA, 1_000_000, 100, 8, 512, shard_rows=2048), GPU, "one H100 (assumed)", ledger)
    own = replace(measured, disk_bytes=1e9)
    yield _large_table(Job(MINILM, 1_000_000, 100, 8, 38), own, "one core of this machine (measured rates)", ledger)


def _large_table(job: Job, rates: Rates, host: str, ledger_seconds: float) -> Table:
    made = table(
        f"{job.rows:.0e} rows on {job.network.name}, rank {job.rank}, {job.tokens} tokens, {job.queries} queries, "
        f"{job.shard_rows} rows a shard; a worker is {host}",
        "workers", "gradients", "owner alone", "scores", "whole job", "speed-up", "shards again", "ledger busy",
        "store busy",
    )  # fmt: skip
    first = 0.0
    for workers in (1, 8, 64):
        gradients, alone, scores = _phases(job, rates, Fleet(workers, STORE_BYTES, ledger_seconds, lives_seconds=LIVES))
        total = gradients.seconds + alone + scores.seconds
        first = first or total
        made.add_row(
            str(workers),
            *map(_span, (gradients.seconds, alone, scores.seconds, total)),
            f"{first / total:.1f}",
            str(gradients.again + scores.again),
            f"{max(gradients.ledger_busy, scores.ledger_busy):.2%}",
            f"{max(gradients.store_busy, scores.store_busy):.0%}",
        )
    made.caption = (
        f"{job.row_bytes / 1e6:.2f} MB a row, {job.gradient_bytes / 1e12:.2f} TB of gradients in {job.shards} shards "
        f"of {job.shard_bytes / 1e9:.2f} GB, their sums {job.sums_bytes / 1e9:.2f} GB each; one ledger step "
        f"{ledger_seconds * 1e3:.2f} ms"
    )
    return made


def _phases(job: Job, rates: Rates, fleet: Fleet) -> tuple[Outcome, float, Outcome]:
    """Gradients, what the job's owner does alone, scores. Sums larger than the shard are left to the owner."""
    told = seconds(job, rates)
    shared = job.sums_bytes <= job.shard_bytes
    moving = job.shard_bytes / rates.disk_bytes
    work = (told.gradients + (told.sums if shared else 0.0)) / job.shards + moving
    gradients = simulate(Shards(job.shards, work, job.shard_bytes + (job.sums_bytes if shared else 0)), fleet)
    read = job.shards * min(job.sums_bytes, job.shard_bytes) / min(rates.disk_bytes, fleet.store_bytes)
    scores = simulate(Shards(job.shards, told.scores / job.shards + moving, job.shard_bytes), fleet)
    return gradients, read + told.solve + (0.0 if shared else told.sums), scores


def _ledger_step() -> Cell:
    """Seconds of one fenced write, on a real server that syncs every one of them to disk, as production should."""
    with TemporaryDirectory() as scratch:
        port = free_port()
        server = start_server(Path(scratch), port, append_only=True)
        ledger = RedisLedger(f"redis://127.0.0.1:{port}/0", tenant="scale", policy=Policy(), timeout_seconds=10)
        try:
            job_id = ledger.create(new_job_id(), demo_subject(progress=False).spec("rows", "rows")).job.id
            claim = ledger.claim(job_id, 1, "one")
            assert claim is not None
            started = time.perf_counter()
            for _ in range(_LEDGER_STEPS):
                ledger.renew(claim)
            return {"seconds": (time.perf_counter() - started) / _LEDGER_STEPS}
        finally:
            ledger.close()
            server.kill()
            server.wait()


def _span(value: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if value >= 2 * size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.1f} s"
