"""The peers' own virtual environment: theirs and ours never share one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).with_name("scripts")
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
CONSTRAINTS = Path("constraints.txt")
VENV_VARIABLE = "ASCRIBE_PEERS_VENV"
SHARED = ("torch", "transformers", "peft")
"""Of the versions that our tests ran with, so that both sides run the same kernels."""
UNWANTED = ("torchvision", "torchaudio")
"""They come along, and their wheels break imports beside torch's build for a CPU."""


def environment() -> Path:
    """Where it is: ASCRIBE_PEERS_VENV, or below .ascribe."""
    return Path(os.environ.get(VENV_VARIABLE, ".ascribe/peers-venv")).absolute()


def set_up() -> None:
    """Make it anew where its python is missing; a second call changes nothing."""
    venv = environment()
    python = venv / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pins = [pin for pin in CONSTRAINTS.read_text(encoding="utf-8").split() if pin.partition("==")[0] in SHARED]
    torch = [pin for pin in pins if pin.startswith("torch==")]
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "install", *torch], check=True)
    subprocess.run([*pip, "install", *pins, "-r", REQUIREMENTS], check=True)
    subprocess.run([*pip, "uninstall", "-y", *UNWANTED], check=True)


def versions() -> dict[str, str]:
    """Of every package whose version a comparison depends on, as installed there."""
    listed = subprocess.run(
        [environment() / "bin/python", "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"],
        check=True,
        capture_output=True,
    )
    installed = {package["name"].lower(): package["version"] for package in json.loads(listed.stdout)}
    named = re.findall(r"^(\w+)==", REQUIREMENTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: installed[name] for name in (*named, *SHARED)}


def run_script(name: str, exchange: Path, *arguments: str) -> dict[str, Any]:
    """Run ``scripts/<name>.py`` there; what it printed last, as JSON. Raises RuntimeError with its last words."""
    return json.loads(run_there([SCRIPTS / f"{name}.py", exchange, *arguments]).splitlines()[-1])  # type: ignore[no-any-return]


def run_there(arguments: list[str | Path]) -> str:
    """Run the environment's python offline on one thread; its output. Raises RuntimeError with its last words."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    env.pop("PYTHONPATH", None)
    done = subprocess.run(
        [environment() / "bin/python", *arguments], capture_output=True, text=True, env=env, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, arguments))} failed:\n{done.stderr[-3000:]}")
    return done.stdout
