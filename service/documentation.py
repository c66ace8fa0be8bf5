"""Pieces of OpenAPI that the endpoints share."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from service.errors import MEDIA_TYPE

_SAYS = {
    400: "The body cannot be read, or the cursor is none.",
    401: "No API key, or a wrong one.",
    404: "No such job or dataset, or nothing there yet.",
    406: "None of the offered media types is in Accept.",
    409: "Not possible in the present state of the job or dataset.",
    410: "The scores have outlived their time to live, or the cached gradients are gone.",
    413: "The body is over the server's limit.",
    415: "The body is of a media type that is not taken here.",
    422: "A field, file, row or checkpoint is wrong; `errors` says which.",
    429: "As many jobs wait as the server takes; retry.",
    500: "What is stored of the scores is damaged.",
    503: "The queue or the store does not answer; retry.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses, each documented as a problem."""
    schema = {"$ref": "#/components/schemas/JobError"}
    return {
        status: {
            "description": _SAYS.get(status, HTTPStatus(status).phrase),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


def header(name: str, description: str) -> dict[str, Any]:
    """A response header that holds a string."""
    return {name: {"description": description, "schema": {"type": "string"}}}
