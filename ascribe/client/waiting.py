"""How a client waits for a job: what it asks next, and how long it pauses before.

The API is asked to hold its reply back until the job has changed (``Prefer: wait``, RFC 7240), so that an end is
noticed at once. One that does not do so is polled as its ``Retry-After`` says.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import httpx

from ascribe.client import requests
from ascribe.client.errors import JobCancelled, JobFailed, JobTimeout
from ascribe.client.messages import Request
from ascribe.client.policy import retry_after
from ascribe.job import Job, JobState

HELD_SECONDS = 20.0
BREATH_SECONDS = 0.1
"""Before asking to be told of the next change: a job whose progress moves all the time is not asked without end."""
POLL_SECONDS = 1.0
LONGEST_POLL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A job as one reply showed it. ``tag``: the reply's ETag. ``pause_seconds``: before asking again is polite."""

    job: Job
    tag: str | None
    pause_seconds: float


class Deadline:
    """When the caller stops waiting; never, with None."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        return None if self._end is None else self._end - time.monotonic()

    def pause(self, seen: Seen) -> float:
        """Seconds to sleep now. Raises JobTimeout."""
        left = self.left()
        if left is None:
            return seen.pause_seconds
        if left <= 0:
            raise JobTimeout(seen.job, self._seconds or 0)
        return min(seen.pause_seconds, left)


def look(job_id: str, last: Seen | None, left: float | None, *, every_change: bool) -> Request[Seen]:
    """The next question about a job, of which ``last`` is known, by a caller with ``left`` seconds.

    ``every_change``: of the job is worth an answer, not its end alone.
    """
    plain = requests.get(job_id)
    hold = int(HELD_SECONDS if left is None else min(HELD_SECONDS, left))
    known = last.tag if last else None
    # The first answer comes at once, for the caller to see where the job is.
    asked = requests.held(plain, hold, unless=known if every_change else None) if last and hold else plain

    def parse(response: httpx.Response) -> Seen:
        job = last.job if last and response.status_code == httpx.codes.NOT_MODIFIED else plain.parse(response)
        tag = response.headers.get("ETag")
        news = last is None or "wait" in response.headers.get("Preference-Applied", "") or (known and known != tag)
        pause = BREATH_SECONDS if news else min(retry_after(response) or POLL_SECONDS, LONGEST_POLL_SECONDS)
        return Seen(job, tag, pause)

    return asked.parsed_by(parse)


def succeeded(job: Job) -> Job:
    """The job itself when it succeeded. Raises JobFailed, JobCancelled."""
    if job.status is JobState.FAILED:
        raise JobFailed(job)
    if job.status is JobState.CANCELLED:
        raise JobCancelled(job)
    return job
