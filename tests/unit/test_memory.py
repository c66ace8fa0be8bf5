"""Memory that was freed goes back to the system."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from worker import memory

STATUS = Path("/proc/self/status")


def _own_bytes() -> int:
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith("RssAnon:"))


def _has_trim() -> bool:
    return STATUS.exists() and hasattr(ctypes.CDLL(None), "malloc_trim")


def test_holes_are_given_back() -> None:
    if not _has_trim():
        memory.give_back()  # another C library: nothing to do, and no error
        return
    pieces = [bytearray(64 * 1024) for _ in range(1000)]
    kept = pieces[::2]
    del pieces
    before = _own_bytes()
    memory.give_back()
    assert before - _own_bytes() > 500 * 32 * 1024
    assert len(kept) == 500


def test_without_such_a_library_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    memory.give_back()
