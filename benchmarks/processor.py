"""What the processor calls itself."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """Name, family and model: a cloud's machines often call themselves by no more than a brand."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return (
        f"{facts.get('model name', platform.machine())} (family {facts.get('cpu family')}, model {facts.get('model')})"
    )
