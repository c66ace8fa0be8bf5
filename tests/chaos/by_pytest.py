"""Tests that pytest has anyway, run longer and recorded beside the others."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from tests.chaos.bench import ROOT
from tests.chaos.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Sizes:
    """``env``: what makes the tests longer."""

    env: dict[str, str] = field(default_factory=dict)
    limit_seconds: int = 1200
    """Of each test."""


def run_pytest(folder: Path, sizes: Sizes, *paths: str) -> Outcome:
    """Each test that failed is named; none at all is a failure too, by pytest's own exit status."""
    report = folder / "report.xml"
    options = ["-q", "-p", "no:cacheprovider", f"--timeout={sizes.limit_seconds}", f"--junitxml={report}"]
    with (folder / "pytest.log").open("wb") as log:
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *paths],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | sizes.env,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314 - pytest has just written it
    failed = [
        case.attrib["name"] for case in cases if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    broken = tuple(f"{name} failed" for name in failed) or (("pytest failed",) if ended.returncode else ())
    return Outcome({"tests": len(cases), "skipped": skipped, "failed": len(failed)}, broken)
