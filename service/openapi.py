"""The OpenAPI document: generated from the code, committed, checked for drift.

python -m service.openapi            write openapi/openapi.json
python -m service.openapi --check    fail when the committed file differs
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ascribe.ledger.base import Policy
from ascribe.ledger.memory import MemoryLedger
from ascribe.settings import ServiceSettings
from service.app import create_app
from service.document import document
from service.doorbell import SilentDoorbell

FILE = Path(__file__).parent.parent / "openapi" / "openapi.json"


def render() -> str:
    """The committed file's text: the same for the same code, whatever the environment says."""
    app = create_app(ServiceSettings.model_construct(), ledger=MemoryLedger(Policy()), doorbell=SilentDoorbell())
    return json.dumps(document(app), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m service.openapi", description="Write openapi/openapi.json.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the file differs from the code")
    check = parser.parse_args().check
    text = render()
    if not check:
        FILE.write_text(text, encoding="utf-8")
        return 0
    if FILE.exists() and FILE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{FILE} differs from the code: run 'make openapi' and commit the file", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
