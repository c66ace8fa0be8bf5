"""Logs: one event a line, JSON unless somebody watches, with the ids of the request or the attempt it belongs to.

Modules log through :mod:`logging`, facts as ``extra``; :func:`bound` adds ids to everything said inside. So do the
libraries' own lines come out in the same form. Lines carry no row, path or key: of an exception they tell its type and
where it was raised, and its message, which may repeat any input, at level DEBUG alone.
"""

from __future__ import annotations

import logging
import sys
import traceback
from contextlib import AbstractContextManager
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ascribe.settings import LogFormat, LogLevel


def configure(log_format: LogFormat, log_level: LogLevel) -> None:
    """Every logger of this process to standard error, once. ``auto``: console form on a terminal, else JSON lines."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    steps = _steps(messages=log_level == "debug")
    renderer: Processor = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer(default=str)
    formatter = structlog.stdlib.ProcessorFormatter
    handler.setFormatter(formatter(foreign_pre_chain=steps, processors=[formatter.remove_processors_meta, renderer]))
    # For libraries that speak structlog where it is installed: the same way out.
    structlog.configure(
        processors=[*steps, formatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    logging.captureWarnings(True)
    for name in list(logging.root.manager.loggerDict):
        # What a library has set up for itself would say everything a second time.
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(log_level.upper())


def bound(**ids: Any) -> AbstractContextManager[None]:
    """Add ``ids`` to every line said inside, in this thread or task and those that inherit its context."""
    return structlog.contextvars.bound_contextvars(**ids)


def _steps(*, messages: bool) -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Raised(messages=messages),
        _without_colours,
    ]


def _without_colours(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """uvicorn sends its message a second time, with colours."""
    event.pop("color_message", None)
    return event


class _Raised:
    """An exception as its type and the places it came through, outermost first."""

    def __init__(self, *, messages: bool) -> None:
        self._messages = messages

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        error = event.pop("exc_info", None)
        if isinstance(error, tuple):
            error = error[1]
        if isinstance(error, BaseException):
            frames = traceback.extract_tb(error.__traceback__)
            event["error"] = type(error).__name__
            event["raised_at"] = [f"{_module(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames]
            if self._messages:
                event["error_message"] = str(error)
        return event


def _module(filename: str) -> str:
    """The last two parts of a source file's path: where it is installed is nobody's business."""
    return "/".join(filename.split("/")[-2:])
