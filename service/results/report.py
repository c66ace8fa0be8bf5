"""The report: one self-contained HTML page of a finished job.

Train texts are anybody's: jinja2 escapes them, and a content security policy allows no script at all and only our own
style sheet, by its hash. All geometry is SVG attributes, so no inline style is needed.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ascribe import __version__
from ascribe.job import Job
from ascribe.result import Manifest
from service.methods.operations import note_of
from service.results import charts, spectra, wording

if TYPE_CHECKING:
    from jinja2 import Template

TOP_ROWS = 10
VISIBLE_BLOCKS = 12
MAX_SPEC_BYTES = 256 << 10


def render(job: Job, manifest: Manifest) -> str:
    """The page as text."""
    diagnostics = manifest.diagnostics
    blocks = sorted(charts.block_bars(diagnostics.blocks), key=lambda bar: bar.severity, reverse=True)
    context: dict[str, Any] = {
        "job": job,
        "manifest": manifest,
        "diagnostics": diagnostics,
        "summary": manifest.summary,
        "version": __version__,
        "css": _css(),
        "policy": content_security_policy(),
        "method": note_of(job.spec.curvature.kind, job.spec.solver.kind),
        "headline": wording.headline(manifest),
        "verdict": wording.verdict(job.spec, diagnostics),
        "facts": wording.facts(job, manifest),
        "provenance": wording.provenance(manifest.provenance),
        "histogram": charts.histogram(manifest.summary.histogram),
        "blocks": blocks[:VISIBLE_BLOCKS],
        "more_blocks": blocks[VISIBLE_BLOCKS:],
        "token_rows": charts.token_rows(manifest.token_examples),
        "labels": charts.label_bars(manifest.summary.by_label),
        "choice": diagnostics.choice,
        "path": spectra.path_rows(diagnostics.damping_path),
        "inverse": spectra.inverse_rows(diagnostics.role_of_inverse),
        "spectrum": spectra.spectrum_chart(diagnostics.blocks),
        "phases": charts.phase_bars(diagnostics.seconds),
        "proponents": charts.score_bars(manifest.summary.proponents[:TOP_ROWS]),
        "opponents": charts.score_bars(manifest.summary.opponents[:TOP_ROWS]),
        "spec": _spec_json(job),
    }
    return _template().render(context)


@cache
def content_security_policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_css().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


@cache
def _css() -> str:
    return files(__package__).joinpath("report.css").read_text(encoding="utf-8")


@cache
def _template() -> Template:
    # Loaded at the first report: the service starts without waiting for it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("service.results", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"score": wording.score, "small": wording.small, "share": wording.share}
    return environment.get_template("report.html")


def _spec_json(job: Job) -> str | None:
    """What to POST to run it again; None where many inline rows would drown the page."""
    text = job.spec.model_dump_json(indent=2)
    return text if len(text) <= MAX_SPEC_BYTES else None
