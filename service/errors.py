"""Every error as one RFC 9457 problem: the shape of ``job.error``, with the request's id.

``errors[].pointer`` is a JSON pointer into the body; ``/query/...`` and ``/header/...`` where those are wrong.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ascribe.errors import AscribeError, InvalidInput, NotFound
from ascribe.job import PROBLEM_BASE, JobError
from service.validation import problems_of

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1


class BadCursor(AscribeError):
    code, title, status = "bad_cursor", "Bad cursor", 400


class UnsupportedMediaType(AscribeError):
    code, title, status = "unsupported_media_type", "Unsupported media type", 415


class NotAcceptable(AscribeError):
    code, title, status = "not_acceptable", "Not acceptable", 406


class TooManyFollowers(AscribeError):
    code, title, status, retryable = "too_many_followers", "Too many followers", 503, True

    def __init__(self) -> None:
        super().__init__("As many clients follow jobs as this server takes, or it is stopping: come again, or poll.")


class Misdirected(AscribeError):
    code, title, status = "misdirected_request", "Misdirected request", 421


class BodyTooLarge(AscribeError):
    code, title, status = "body_too_large", "Body too large", 413

    def __init__(self) -> None:
        super().__init__(
            "The body is over the server's limit, max_body_bytes or for an upload max_file_bytes: upload the rows as a "
            "dataset, or put them into a file below the data root."
        )


class ProblemResponse(JSONResponse):
    media_type = MEDIA_TYPE


def problem_response(
    error: AscribeError, request_id: str | None, headers: Mapping[str, str] | None = None
) -> ProblemResponse:
    """``error`` as a response; what is worth a retry says when."""
    body = JobError.of(error, request_id=request_id).model_dump(mode="json")
    retry = {"Retry-After": str(RETRY_SECONDS)} if error.retryable else {}
    return ProblemResponse(body, status_code=error.status, headers={**retry, **(headers or {})})


def install(app: FastAPI) -> None:
    """Handlers for what an endpoint or the framework raises; what nobody expected ends in ``RequestContext``."""
    app.add_exception_handler(AscribeError, _on_ascribe_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


def _request_id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)


def _on_ascribe_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, AscribeError)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("request refused", extra={"code": error.code, "detail": error.detail})
    return problem_response(error, _request_id(request))


def _on_validation_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    if any(item["loc"][:1] == ("path",) for item in error.errors()):
        # An id that cannot be one names nothing: to the caller it is a job or dataset that is not there.
        message = "There is nothing with this id: a job's is job_ and 32 hex digits, a dataset's ds_ and 64."
        return problem_response(NotFound(message), _request_id(request))
    problems = problems_of(error.errors(), error.body)
    first = f"{problems[0].pointer or 'request'}: {problems[0].message}"
    detail = first if len(problems) == 1 else f"{len(problems)} problems; the first is {first}"
    return problem_response(InvalidInput(detail, errors=problems), _request_id(request))


def _on_http_exception(request: Request, error: Exception) -> ProblemResponse:
    """The framework's own refusals: no such route or method, a body that is too big or cannot be read."""
    assert isinstance(error, HTTPException)
    if error.status_code == BodyTooLarge.status:
        return problem_response(BodyTooLarge(), _request_id(request))
    status = HTTPStatus(error.status_code)
    headers = dict(error.headers or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED and (allowed := _allowed(request)):
        headers["Allow"] = allowed
    body = JobError(
        type=PROBLEM_BASE + status.name.lower().replace("_", "-"),
        title=status.phrase,
        status=status,
        code=status.name.lower(),
        retryable=False,
        detail=_DETAILS.get(status, status.description or status.phrase),
        request_id=_request_id(request),
    )
    return ProblemResponse(body.model_dump(mode="json"), status_code=status, headers=headers)


def _allowed(request: Request) -> str | None:
    """Every method of the address; the framework names those of the first route that fits, whatever others have.

    An id takes in what follows it, ``:cancel`` too: of the paths that fit, the one that spells out most is meant.
    """
    paths = request.app.openapi()["paths"]
    fitting = []
    for path in paths:
        words = _PARAMETER.split(path)
        if re.fullmatch("[^/]+".join(map(re.escape, words)), request.url.path):
            fitting.append((sum(map(len, words)), path))
    return ", ".join(sorted(method.upper() for method in paths[max(fitting)[1]])) if fitting else None


_PARAMETER = re.compile(r"\{\w+\}")
_DETAILS = {
    HTTPStatus.BAD_REQUEST: "The body cannot be read as JSON in UTF-8, or nests too deeply.",
    HTTPStatus.NOT_FOUND: "There is nothing at this address: /docs lists what there is.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This address does not take this method.",
}
