"""Accounts for every accepted job: how it ended, how often it was committed, and how long a kill held it up."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import redis

from ascribe.errors import NotFound, QueueUnavailable
from ascribe.event import EventType
from ascribe.job import Attempt, JobState
from ascribe.ledger.base import Pulse
from ascribe.ledger.redis import LAYOUT, RedisLedger
from ascribe.result import MEAN
from tests.chaos.noop_work import signature
from tests.chaos.outcome import Fact, Outcome

BATCH = 500
LOOK_EVERY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Kill:
    """``workers``: the names under which the killed processes claim; ``at``: seconds of the server's clock."""

    at: float
    workers: frozenset[str]


@dataclass(slots=True)
class Checker:
    ledger: RedisLedger
    server: redis.Redis
    tenant: str
    logs: Path
    """Folder of the workers' logs, JSON lines."""
    accepted: list[str] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)

    def accept(self, job_id: str) -> None:
        """The ledger, or the API, has said yes to it: from here on it must not get lost."""
        self.accepted.append(job_id)

    def wait(self, within_seconds: float) -> float:
        """Until every accepted job has ended, or the time is over; the seconds it took."""
        began = time.monotonic()
        while time.monotonic() - began < within_seconds and self._anything_open():
            time.sleep(LOOK_EVERY_SECONDS)
        return time.monotonic() - began

    def outcome(self) -> Outcome:
        """To be asked after :meth:`wait`. ``broken`` names lost jobs and double commits; failures are a fact."""
        states: Counter[str] = Counter()
        attempts: Counter[int] = Counter()
        recoveries: list[float] = []
        twice = self._committed_twice()
        lost, wrong = [], []
        for job_id in self.accepted:
            try:
                job, events = self.ledger.get(job_id), self.ledger.events(job_id)
            except NotFound:
                lost.append(job_id)
                continue
            states[job.status] += 1
            attempts[job.attempt] += 1
            recoveries += self._recoveries(job.attempts)
            if not job.status.terminal:
                lost.append(job_id)
            if sum(event.type is EventType.SUCCEEDED for event in events) > 1:
                twice.add(job_id)
            if job.status is JobState.SUCCEEDED and not self._is_its_own(job_id):
                wrong.append(job_id)
        broken = {"lost": lost, "committed twice": sorted(twice), "result of another fence": wrong}
        facts: dict[str, Fact] = {
            "accepted": len(self.accepted),
            **{state.value: states[state] for state in JobState if states[state]},
            **({"worker kills": len(self.kills)} if self.kills else {}),
            "lost": len(lost),
            "duplicate commits": len(twice) + len(wrong),
            "attempts": ", ".join(f"{number}: {count}" for number, count in sorted(attempts.items())),
            **_told(recoveries),
        }
        found = (f"{len(jobs)} {what}: {' '.join(jobs[:5])}" for what, jobs in broken.items() if jobs)
        return Outcome(facts, tuple(found))

    def _anything_open(self) -> bool:
        """Counts first, being cheap; then each job, for a count cannot see a record that is gone."""
        try:
            jobs = self.ledger.counts().jobs
            if any(jobs[state] for state in JobState if not state.terminal):
                return True
            return any(pulse is not None and not pulse.status.terminal for pulse in self._pulses())
        except QueueUnavailable:
            return True

    def _pulses(self) -> Iterator[Pulse | None]:
        for start in range(0, len(self.accepted), BATCH):
            yield from self.ledger.pulses(self.accepted[start : start + BATCH])

    def _is_its_own(self, job_id: str) -> bool:
        """Whether the bytes that are read were staged under the fence that committed."""
        fence = self.server.hget(f"{{ascribe:{self.tenant}}}:{LAYOUT}:job:{job_id}", "fence")
        assert isinstance(fence, bytes)
        return b"".join(self.ledger.read(job_id, MEAN)).startswith(signature(job_id, int(fence)))

    def _committed_twice(self) -> set[str]:
        """Jobs of which workers under two fences say that they committed them: their word, not the ledger's."""
        commits = {
            (line["job_id"], line["fence"])
            for log in self.logs.glob("worker-*.log")
            for line in _lines(log, '"outcome": "committed"')
        }
        times = Counter(job_id for job_id, _ in commits)
        return {job_id for job_id, count in times.items() if count > 1}

    def _recoveries(self, attempts: Sequence[Attempt]) -> Iterator[float]:
        """Seconds from each kill that ended an attempt of this job to its next claim."""
        for lost, again in pairwise(attempts):
            for kill in self.kills:
                if lost.worker in kill.workers and lost.started_at.timestamp() <= kill.at:
                    yield again.started_at.timestamp() - kill.at


def _lines(log: Path, marker: str) -> Iterator[dict[str, str]]:
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if marker in line:
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    continue  # its writer was killed in the middle of it


def _told(recoveries: list[float]) -> dict[str, Fact]:
    if not recoveries:
        return {}
    return {
        "recoveries": len(recoveries),
        "recovery median s": round(statistics.median(recoveries), 2),
        "recovery worst s": round(max(recoveries), 2),
    }
