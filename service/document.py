"""The OpenAPI document of the application: FastAPI's, and what FastAPI cannot know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.middleware import OPEN_PATHS

DESCRIPTION = """\
Which training examples made this model behave like that, and by how much?

Submit a job, poll it until it has ended, read its scores. A positive score marks a proponent: up-weighting that train
row lowers the validation loss. Every result says how accurately its inverse was solved. Errors are RFC 9457 problems.
"""
TAGS = [
    {"name": "jobs", "description": "Submit, check, follow, cancel and delete attribution jobs."},
    {"name": "datasets", "description": "Files of rows, uploaded once and named in jobs by their content."},
    {"name": "results", "description": "Scores, summary and report of a job that succeeded."},
    {"name": "methods", "description": "Curvatures, solvers and which go together; the limits."},
    {"name": "health", "description": "For probes: open without a key."},
]


def document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with what it cannot know: the key that the middleware asks for, problems as such."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            tags=app.openapi_tags,
            routes=app.routes,
            separate_input_output_schemas=app.separate_input_output_schemas,
        )
        schema["components"]["securitySchemes"] = {
            "apiKey": {
                "type": "http",
                "scheme": "bearer",
                "description": "`ASCRIBE_API_KEY` of the server, if it has one.",
            }
        }
        optional: list[dict[str, Any]] = [] if app.state.settings.api_key else [{}]
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                # Without a key (loopback only) nothing is asked for: the empty requirement says so.
                _drop_unused_422(operation)
                operation["security"] = [] if path in OPEN_PATHS else [{"apiKey": []}, *optional]
        _link(schema["paths"])
        for unused in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(unused, None)
        app.openapi_schema = schema
    return app.openapi_schema


def _drop_unused_422(operation: dict[str, Any]) -> None:
    """FastAPI adds one wherever there is a parameter; an id that cannot be one is a 404 here."""
    if "application/json" in operation["responses"].get("422", {}).get("content", {}):
        del operation["responses"]["422"]


_MAKERS = {"job_id": ("create_job", "create_query"), "dataset_id": ("upload_dataset",)}
"""Which operations answer with a resource, by the path parameter that then takes its id."""


def _link(paths: dict[str, dict[str, Any]]) -> None:
    """Links from what makes a resource to all that can be asked of it: tools follow them from answer to request."""
    operations = [(path, operation) for path, item in paths.items() for operation in item.values()]
    for parameter, makers in _MAKERS.items():
        links = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {parameter: "$response.body#/id"},
            }
            for path, operation in operations
            if f"{{{parameter}}}" in path
        }
        for _, operation in operations:
            if operation["operationId"] in makers:
                for status in operation["responses"].keys() & {"200", "201", "202"}:
                    operation["responses"][status]["links"] = links
