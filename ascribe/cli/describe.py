"""A job in words: one row of a list, or all that is worth knowing about it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ascribe.cli.output import number
from ascribe.cli.waiting import headline, remaining
from ascribe.client.errors import describe
from ascribe.job import Attempt, Job
from ascribe.result import BlockDiagnostics, Diagnostics
from ascribe.spec import JobSpec


def method(spec: JobSpec) -> str:
    """Curvature, solver and damping as asked for, such as ``gfim + schulz, relative 0.1``."""
    name = spec.solver.kind if spec.curvature.kind == "none" else f"{spec.curvature.kind} + {spec.solver.kind}"
    if spec.damping is None:
        return name
    return f"{name}, {spec.damping.form} {', '.join(f'{factor:g}' for factor in spec.damping.factors)}"


def job_row(job: Job) -> Sequence[object]:
    return (job.id, headline(job), job.spec.name or "-", method(job.spec), moment(job.created_at))


def job_facts(job: Job) -> dict[str, object]:
    """Name and value of everything there is; None where there is nothing to say."""
    progress = job.progress if not job.status.terminal else None
    facts: dict[str, object] = {
        "job": job.id,
        "name": job.spec.name,
        "status": job.status,
        "method": method(job.spec),
        "model": " + ".join(filter(None, (job.spec.model.base, job.spec.model.adapter))),
        "created": moment(job.created_at),
        "started": job.started_at and moment(job.started_at),
        "finished": job.finished_at and moment(job.finished_at),
        "retry of": job.retry_of,
        "attempt": job.attempt,
        **{f"attempt {one.number}": attempt_text(one) for one in job.attempts if job.attempt > 1},
        "progress": progress
        and f"{headline(job)} {progress.done}/{progress.total} ({progress.fraction:.0%}) {remaining(job)}",
        "error": job.error and describe(job.error),
    }
    if job.result:
        facts["rows"] = f"{job.result.train_rows} train, {job.result.validation_rows} validation"
        facts["parameters"] = f"{job.result.parameters} in {len(job.result.diagnostics.blocks)} blocks"
        facts |= diagnostic_facts(job.result.diagnostics)
    return facts


def attempt_text(attempt: Attempt) -> str:
    """How it ended, who worked on it, and when."""
    outcome = (attempt.outcome or "at work").replace("_", " ")
    until = f" to {moment(attempt.ended_at)}" if attempt.ended_at else ""
    return f"{outcome}; worker {attempt.worker}, from {moment(attempt.started_at)}{until}"


def diagnostic_facts(diagnostics: Diagnostics) -> dict[str, object]:
    """How accurate, how expensive."""
    phases = ", ".join(f"{name} {value:.3g}" for name, value in diagnostics.seconds.items() if name != "total")
    reused = ", ".join(f"{kind} {use.reused} of {use.of}" for kind, use in diagnostics.reused.items())
    shares = [str(rows) for rows in diagnostics.workers.values()]
    cache = ", ".join(f"{name} {use.hit_rows} of {use.rows} rows" for name, use in diagnostics.cache.items())
    return {
        "solve": f"{diagnostics.status}: {diagnostics.advice}",
        "solver taken": diagnostics.choice and f"{diagnostics.choice.pick}: {diagnostics.choice.why}",
        "damping path": _path(diagnostics),
        "role of the inverse": _role(diagnostics),
        "worst residual": number(diagnostics.worst_relative_residual),
        "damping added": damping_range(diagnostics.blocks),
        "condition bound": number(diagnostics.largest_condition_bound),
        "iterations": diagnostics.iterations,
        "seconds": f"{number(diagnostics.seconds.get('total'))} ({phases})",
        "peak memory": f"{diagnostics.peak_memory_bytes / 2**20:.0f} MiB",
        "gradients cached": cache,
        "reused": reused or None,
        "shared by": f"{len(shares)} workers ({', '.join(shares)} rows)" if len(shares) > 1 else None,
        "warnings": "; ".join(diagnostics.warnings) or None,
    }


def _path(diagnostics: Diagnostics) -> str | None:
    """Each value, and how far its ranking agrees with that of the first."""
    return (
        ", ".join(f"{point.factor:g} (agrees {number(point.spearman[0])})" for point in diagnostics.damping_path)
        or None
    )


def _role(diagnostics: Diagnostics) -> str | None:
    role = diagnostics.role_of_inverse
    if role is None:
        return None
    return (
        f"ranks agree {number(role.with_plain_product)} with plain products, {number(role.with_top_removed)} with "
        f"products without the top {role.top_directions} directions"
    )


def damping_range(blocks: Sequence[BlockDiagnostics]) -> str | None:
    """Smallest and largest lambda over the blocks, since a relative damping differs from block to block."""
    values = [block.damping for block in blocks if block.damping is not None]
    if not values:
        return None
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"


def moment(time: datetime) -> str:
    """Local time, to the second."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
