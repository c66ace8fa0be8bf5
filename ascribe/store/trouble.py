"""What can go wrong with a store far away: tried again where that may help, and told as StorageFailed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import stamina

from ascribe.errors import NoRoom, StorageFailed
from ascribe.store.files import FULL

ATTEMPTS = 3

_T = TypeVar("_T")
_HOPELESS = (FileNotFoundError, PermissionError, ValueError, TypeError)


class ShortRead(OSError):
    """Fewer or more bytes came than there are."""


def insist(work: Callable[[], _T]) -> _T:
    """The work done, after :data:`ATTEMPTS` tries if need be.

    Raises:
        StorageFailed: from whatever the last try raised: fsspec's backends share no root of errors.
    """
    for attempt in stamina.retry_context(on=_worth_another_try, attempts=ATTEMPTS, wait_initial=0.2, wait_max=2):
        with attempt:
            try:
                return work()
            except Exception as error:
                raise _told(error) from error  # here, so that the notes on retries are in our words too
    raise AssertionError("the last attempt returns or raises")


def _worth_another_try(told: Exception) -> bool:
    return not isinstance(told.__cause__, _HOPELESS)


def _told(error: Exception) -> StorageFailed:
    """With what to do about it. Never in the error's own words: they name paths, hosts and keys."""
    if isinstance(error, OSError) and error.errno in FULL:
        return NoRoom("the shared store is full, or the disk here that its files are copied to: free some space")
    return StorageFailed(_advice(error))


def _advice(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return (
            "the shared store refuses access: check its credentials, and their rights to read, write, list and delete"
        )
    if isinstance(error, FileNotFoundError):
        return (
            "the bucket, folder or file is not in the shared store: check ASCRIBE_STORE_URL and that the bucket exists"
        )
    if type(error).__name__ == "NoCredentialsError":
        return "the shared store wants credentials: set AWS_ACCESS_KEY_ID and its like, or ASCRIBE_STORE_OPTIONS"
    return (
        f"the shared store cannot be reached or fails ({type(error).__name__}): check that it is up and that "
        "ASCRIBE_STORE_URL and ASCRIBE_STORE_OPTIONS are right, then try again"
    )
