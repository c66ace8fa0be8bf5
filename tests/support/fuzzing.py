"""schemathesis over the whole document: every phase and check, against the app in this process.

Run as a module, it takes its time: ``python -m tests.support.fuzzing --examples 200``.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import schemathesis
from fastapi import FastAPI
from pydantic import SecretStr
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from ascribe.ledger.base import Call, Ledger, Policy, Ring
from ascribe.ledger.memory import MemoryLedger
from ascribe.settings import ServiceSettings
from service.app import create_app
from service.datasets.schemas import MEDIA_TYPES
from tests.support.handmade import finish, write_checkpoint, write_rows

KEY = "k3y-of-the-fuzzing-run"

for media_type in MEDIA_TYPES:
    # An upload is bytes, whatever they are called.
    schemathesis.serializer.alias(media_type, "application/octet-stream")


@dataclass
class Player:
    """A doorbell that plays the worker: it finishes three jobs of four at once, the fourth stays queued."""

    ledger: Ledger
    heard: int = 0

    def ring(self, ring: Ring) -> None:
        self.heard += 1
        if self.heard % 4:
            finish(self.ledger, ring.job_id)

    def call(self, call: Call) -> None:
        """It works alone."""


@dataclass
class Outcome:
    """What a run found. ``answers`` counts (operation, status)."""

    problems: list[str] = field(default_factory=list)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    phases: dict[str, str] = field(default_factory=dict)


def make_app(folder: Path) -> FastAPI:
    root = folder / "data"
    write_checkpoint(root)
    write_rows(root / "topics" / "train.jsonl", 30)
    ledger = MemoryLedger(Policy(max_queued_jobs=10_000))
    settings = ServiceSettings(
        data_root=root,
        uploads_dir=folder / "uploads",
        results_dir=folder / "results",
        api_key=SecretStr(KEY),
        reconcile_seconds=0.05,
    )
    return create_app(settings, ledger=ledger, doorbell=Player(ledger))


def run(folder: Path, *, examples: int, seed: int) -> Outcome:
    config = SchemathesisConfig.from_dict(_config(examples, seed))
    schema = schemathesis.openapi.from_asgi("/openapi.json", make_app(folder), config=config)
    outcome = Outcome()
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            _note(event, outcome)
        elif isinstance(event, events.PhaseFinished):
            outcome.phases[event.phase.name.value] = event.status.value
        elif isinstance(event, events.NonFatalError):
            outcome.problems.append(f"{event.label}: {event.value}")
        elif isinstance(event, events.FatalError):
            outcome.problems.append(str(event.exception))
    return outcome


def _config(examples: int, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        # What no schema can say: the file is not there, the cursor is none, the solver does not fit the curvature.
        "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "3xx", "4xx"]}},
        # A 404 that is meant: there is nothing of a job that has not ended.
        "operations": [
            {
                "include-path-regex": "/(completion|scores|summary|report)$",
                "checks": {"ensure_resource_availability": {"enabled": False}},
            }
        ],
        "headers": {"Authorization": f"Bearer {KEY}"},
        "generation": {"max-examples": examples, "no-shrink": True, "database": "none"},
    }


def _note(event: events.ScenarioFinished, outcome: Outcome) -> None:
    for case_id, interaction in event.recorder.interactions.items():
        if interaction.response is not None:
            operation = event.recorder.cases[case_id].value.operation.label
            outcome.answers[operation, interaction.response.status_code] += 1
    for case_id, checks in event.recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                failure = check.failure_info.failure
                outcome.problems.append(
                    f"{event.recorder.cases[case_id].value.operation.label}: {check.name}: {failure.title}\n"
                    f"{failure.message}\n{check.failure_info.code_sample}"
                )


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz every operation of the OpenAPI document.")
    parser.add_argument("--examples", type=int, default=100, help="examples an operation and phase")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="of an earlier run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder), examples=given.examples, seed=given.seed)
    for (operation, status), count in sorted(outcome.answers.items()):
        print(f"{count:7} {status} {operation}")
    print(outcome.phases)
    for problem in outcome.problems:
        print("-" * 100, problem, sep="\n")
    print(f"{sum(outcome.answers.values())} requests, {len(outcome.problems)} problems, seed {given.seed}")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
