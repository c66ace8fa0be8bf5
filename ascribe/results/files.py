"""Where files of score vectors are, and what they are called."""

from __future__ import annotations

import re
from dataclasses import replace

from ascribe.settings import Settings
from ascribe.store.remote import Remote, open_remote

_NAME = re.compile(r"(job_[0-9a-f]{32})-\d+\.parquet")


def open_results(settings: Settings) -> Remote:
    """The tenant's results: in the store that machines share, or in a folder where there is none."""
    shared = open_remote(settings)
    if shared is None:
        return Remote(f"file://{settings.results_dir.resolve()}/{settings.tenant}")
    return replace(shared, url=f"{shared.url}/results")


def file_name(job_id: str, fence: int) -> str:
    """Of the vectors of one attempt: another's never have the same name."""
    return f"{job_id}-{fence}.parquet"


def job_of(name: str) -> str | None:
    """The job whose attempt wrote the file; None: it is no file of ours."""
    found = _NAME.fullmatch(name)
    return found[1] if found else None
