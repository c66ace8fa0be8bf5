"""What a caller of :class:`ascribe.Client` can catch.

ClientError
├── NoConnection            nothing answered, or the answer never came
├── UnexpectedReply         something answered, and it is not an Ascribe API
├── MissingExtra            a package that this call needs is not installed
├── FileProblem             a file of the caller's own that cannot be read or written
├── ApiError                the API answered with a problem: status, code, request_id, errors (pointers)
│   ├── BadRequest          400
│   ├── Unauthorized        401, 403
│   ├── NotFound            404, also scores that are not ready (code ``not_ready``)
│   ├── Conflict            409
│   ├── Gone                410  the scores have outlived their TTL
│   ├── TooLarge            413
│   ├── Invalid             422
│   ├── TooMany             429  retried
│   └── ServerError         5xx
│       └── Unavailable     502, 503, 504  retried
└── JobEnded                the job itself; carries ``job``
    ├── JobFailed           ``job.error`` says why
    ├── JobCancelled
    └── JobTimeout          the caller stopped waiting; the job goes on
"""

from __future__ import annotations

from collections.abc import Callable

from ascribe.job import PROBLEM_BASE, Job, JobError, ProblemItem


class ClientError(Exception):
    """Root of the tree."""


class NoConnection(ClientError):
    """Nothing answered at the API's address."""


class UnexpectedReply(ClientError):
    """The reply is not what an Ascribe API sends: a wrong address, a proxy's page, or another version."""


class MissingExtra(ClientError):
    """A package that this call needs is not installed; the message names the extra."""


class FileProblem(ClientError):
    """A file of the caller's own that cannot be read, sent or written."""


class ApiError(ClientError):
    """A problem the API reported. ``retry_after`` is in seconds, where the API named it."""

    def __init__(self, problem: JobError, *, retry_after: float | None = None) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        return self.problem.status

    @property
    def code(self) -> str:
        return self.problem.code

    @property
    def request_id(self) -> str | None:
        return self.problem.request_id

    @property
    def errors(self) -> tuple[ProblemItem, ...]:
        return self.problem.errors

    def __str__(self) -> str:
        return describe(self.problem)


class BadRequest(ApiError):
    pass


class Unauthorized(ApiError):
    pass


class NotFound(ApiError):
    pass


class Conflict(ApiError):
    pass


class Gone(ApiError):
    pass


class TooLarge(ApiError):
    pass


class Invalid(ApiError):
    pass


class TooMany(ApiError):
    pass


class ServerError(ApiError):
    pass


class Unavailable(ServerError):
    pass


class JobEnded(ClientError):
    """Not as hoped; ``job`` is the record as last seen."""

    def __init__(self, message: str, job: Job) -> None:
        super().__init__(message)
        self.job = job


class JobFailed(JobEnded):
    def __init__(self, job: Job) -> None:
        why = describe(job.error) if job.error else "it gave no reason"
        super().__init__(f"{job.id} failed: {why}", job)


class JobCancelled(JobEnded):
    def __init__(self, job: Job) -> None:
        super().__init__(f"{job.id} was cancelled", job)


class JobTimeout(JobEnded):
    def __init__(self, job: Job, seconds: float) -> None:
        super().__init__(f"{job.id} is still {job.status} after {seconds:g} s; it goes on", job)


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: TooLarge,
    422: Invalid,
    429: TooMany,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def api_error(problem: JobError, *, retry_after: float | None = None) -> ApiError:
    """The class for this status."""
    fallback = ServerError if problem.status >= 500 else BadRequest
    return _BY_STATUS.get(problem.status, fallback)(problem, retry_after=retry_after)


def bare_problem(status: int, reason: str) -> JobError:
    """A problem for an error reply that carries none, such as a proxy's page."""
    return JobError(
        type=f"{PROBLEM_BASE}http-{status}",
        title=reason or "HTTP error",
        status=status,
        code=f"http_{status}",
        retryable=status in {429, 502, 503, 504},
        detail=f"the reply was HTTP {status} without a problem document",
    )


def describe(problem: JobError, *, where: Callable[[str], str] = lambda pointer: pointer or "/") -> str:
    """Title, detail, each place with its message, and the request id: everything a person needs to act.

    ``where`` puts a pointer into words.
    """
    only = problem.errors[0] if len(problem.errors) == 1 else None
    # The detail of a single problem says what its item says.
    lines = [problem.title if only and only.message in problem.detail else f"{problem.title}: {problem.detail}"]
    lines += [f"  {where(item.pointer)}: {item.message}" for item in problem.errors]
    if problem.request_id:
        lines.append(f"  request id: {problem.request_id}")
    return "\n".join(lines)
