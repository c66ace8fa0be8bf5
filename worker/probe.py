"""``python -m worker.probe``: for a container's probes. Exit code 0, or 1 with a line that says why.

alive: Celery's main loop has turned lately. ready: the ledger answers as well. The loop touches the file that
``ASCRIBE_ALIVE_FILE`` names, so a worker that is frozen or hangs is found out, and one that works on a long job is not.
"""

from __future__ import annotations

import argparse
import sys
import time

from pydantic import ValidationError

from ascribe.errors import QueueUnavailable
from ascribe.settings import WorkerSettings

ALIVE_SECONDS = 60.0
"""More than Celery takes to connect again after an outage, when its loop stands still for up to 30 seconds."""


def main() -> int:
    given = _parser().parse_args()
    trouble = _not_alive(given.seconds) or (_not_ready() if given.what == "ready" else None)
    if trouble:
        print(trouble)
    return 1 if trouble else 0


def _not_alive(seconds: float) -> str | None:
    try:
        file = WorkerSettings().alive_file
    except ValidationError as error:
        return f"the settings are not valid: {error.errors(include_input=False)[0]['msg']}"
    if file is None:
        return "nothing to look at: set ASCRIBE_ALIVE_FILE, for the worker and for this probe"
    try:
        age = time.time() - file.stat().st_mtime
    except OSError as error:
        return f"the worker has not begun: {file} cannot be read ({error.strerror})"
    return f"the worker's main loop has not turned for {age:.0f} s" if age > seconds else None


def _not_ready() -> str | None:
    from ascribe.ledger.opening import open_ledger

    ledger = open_ledger(WorkerSettings())
    try:
        ledger.ping()
    except QueueUnavailable as error:
        return error.detail
    finally:
        ledger.close()
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker.probe", description="Is the worker of this machine well?")
    parser.add_argument("what", nargs="?", choices=("alive", "ready"), default="alive")
    parser.add_argument(
        "--seconds", type=float, default=ALIVE_SECONDS, help="age of the last turn that is too old (default 60)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
