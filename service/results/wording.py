"""The report in words and numbers: what was found, how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ascribe.job import Job
from ascribe.result import Diagnostics, Manifest, Provenance
from ascribe.spec import JobSpec
from ascribe.status import SolveStatus

MINUS = "\N{MINUS SIGN}"
GiB = 1 << 30


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far the scores can be trusted. ``tone`` colours it; the words alone must do without the colour."""

    tone: Literal["good", "caution", "bad"]
    title: str
    text: str


def score(value: float) -> str:
    """With its sign, three digits: ``+0.0123``, ``−4.5e-7``."""
    mantissa, exponent = _parts(f"{value:+#.3g}")
    return (mantissa + exponent).replace("-", MINUS)


def small(value: float) -> str:
    """Three significant digits."""
    mantissa, exponent = _parts(f"{value:.3g}")
    return (mantissa + exponent).replace("-", MINUS)


def _parts(text: str) -> tuple[str, str]:
    mantissa, _, exponent = text.partition("e")
    return mantissa.removesuffix("."), f"e{int(exponent)}" if exponent else ""


def share(value: float) -> str:
    """A share in percent that does not round something to nothing or most to all."""
    if 0 < value < 0.01:
        return "under 1 %"
    if 0.99 < value < 1:
        return "over 99 %"
    return f"{value:.0%}".replace("%", " %")


def count(value: int, noun: str) -> str:
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}") + f" {noun}" + ("" if value == 1 else "s")


def headline(manifest: Manifest) -> str:
    negative = round(manifest.summary.share_negative * manifest.train_rows)
    validation = (
        "validation row" if manifest.validation_rows == 1 else count(manifest.validation_rows, "validation row")
    )
    if negative == 0:
        return f"No train row works against the {validation}: every mean score is positive or zero."
    return (
        f"{count(negative, 'train row')} of {count(manifest.train_rows, 'row').removesuffix(' rows')} "
        f"({share(manifest.summary.share_negative)}) work against the {validation}: "
        "giving one of them more weight would raise the loss there."
    )


def verdict(spec: JobSpec, diagnostics: Diagnostics) -> Verdict:
    """Good only where the solve reached its goal."""
    worst = small(diagnostics.worst_relative_residual)
    if diagnostics.status is SolveStatus.CONVERGED and spec.curvature.kind == "none":
        return Verdict("good", "Nothing to solve", "Without curvature the scores are plain products of gradients.")
    if diagnostics.status is SolveStatus.CONVERGED:
        text = f"In every block the inverse was solved to a measured relative residual of at most {worst}."
        return Verdict("good", "Solved accurately", text)
    if diagnostics.status is SolveStatus.APPROXIMATE:
        text = f"The relative residual reaches {worst}. {diagnostics.advice}"
        return Verdict("caution", "An approximation, by design", text)
    failed = sum(block.status.severity > SolveStatus.APPROXIMATE.severity for block in diagnostics.blocks)
    text = (
        f"{failed} of {count(len(diagnostics.blocks), 'block')} did not reach the goal, "
        f"the worst relative residual is {worst}. {diagnostics.advice}"
    )
    stopped = diagnostics.status is SolveStatus.MAX_ITERATIONS
    title = (
        "Stopped before its goal: take this ranking with care" if stopped else "Not solved: do not trust this ranking"
    )
    return Verdict("bad", title, text)


def facts(job: Job, manifest: Manifest) -> list[tuple[str, str]]:
    """The figures under the verdict."""
    diagnostics = manifest.diagnostics
    rows = [
        ("worst relative residual", small(diagnostics.worst_relative_residual)),
        ("damping", _damping(job.spec)),
        ("iterations, at most", str(diagnostics.iterations)),
        ("parameters", f"{manifest.parameters:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")),
    ]
    if (use := diagnostics.projection) is not None:
        agreement = "not measured" if use.rank_agreement is None else f"{use.rank_agreement:.3f}"
        rows.append(("rank agreement of the projection", agreement))
    if diagnostics.largest_condition_bound is not None:
        rows.insert(1, ("condition, at most", small(diagnostics.largest_condition_bound)))
    return rows


def _damping(spec: JobSpec) -> str:
    if spec.damping is None:
        return "none"
    factor = small(spec.damping.factors[0])
    more = f" (and {count(spec.damping_count - 1, 'other value')})" if spec.damping_count > 1 else ""
    return {
        "relative": f"{factor} × mean squared entry",
        "relative_to_largest": f"{factor} × largest eigenvalue",
        "absolute": factor,
    }[spec.damping.form] + more


def provenance(record: Provenance) -> list[tuple[str, str]]:
    hashes = [
        ("base", record.base_sha256),
        ("adapter", record.adapter_sha256 or "none"),
        ("train rows", record.train_sha256),
        ("validation rows", record.validation_sha256),
        ("gradients", record.gradient_fingerprint),
    ]
    if record.solution_fingerprint is not None:
        hashes.append(("solution", record.solution_fingerprint))
    settings = [
        ("device", record.device),
        ("attention", record.attention),
        ("token budget", str(record.token_budget)),
        ("seed", str(record.seed)),
        ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
    ]
    return [*hashes, *settings]
