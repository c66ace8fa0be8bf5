"""Where the API is: what ``ascribe up`` leaves for other terminals, and how a client finds it.

``up`` keeps everything below one state folder: ``$ASCRIBE_STATE_DIR``, else ``$XDG_STATE_HOME/ascribe``, else
``~/.local/state/ascribe``. Its ``up.json`` is there only while ``up`` runs.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

DEFAULT_URL = "http://127.0.0.1:8000"


class Running(BaseModel):
    """Content of ``up.json``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str
    pid: int
    started_at: datetime
    cache_dir: Path | None = None


def default_state_dir() -> Path:
    """The folder where ``ascribe up`` keeps jobs, cache and logs unless told otherwise."""
    if given := os.environ.get("ASCRIBE_STATE_DIR"):
        return Path(given)
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "ascribe"


def write_running(state_dir: Path, running: Running) -> None:
    """Write ``up.json`` beside its place and rename it, so that no reader sees half of it."""
    fresh = state_dir / f"up.json.{os.getpid()}"
    fresh.write_text(running.model_dump_json(indent=1) + "\n", encoding="utf-8")
    fresh.replace(state_dir / "up.json")


def remove_running(state_dir: Path) -> None:
    (state_dir / "up.json").unlink(missing_ok=True)


def read_running(state_dir: Path) -> Running | None:
    """The stack that runs on this state folder; None where there is none or its ``up`` died without tidying."""
    with suppress(OSError, ValidationError):
        running = Running.model_validate_json((state_dir / "up.json").read_bytes())
        if _alive(running.pid):
            return running
    return None


def find_url() -> str:
    """``ASCRIBE_URL``, else the running ``ascribe up``, else port 8000 of this machine."""
    if given := os.environ.get("ASCRIBE_URL"):
        return given
    running = read_running(default_state_dir())
    return running.url if running else DEFAULT_URL


def find_cache_dir() -> Path:
    """Where the workers of the running ``ascribe up`` keep gradients, else where one would unless told otherwise."""
    running = read_running(default_state_dir())
    return (running and running.cache_dir) or default_state_dir() / "cache"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
