"""The floor of the API's latency: one FastAPI route that answers with what it has in memory.

python -m benchmarks.bare PORT FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI


def main() -> None:
    document: dict[str, Any] = json.loads(Path(sys.argv[2]).read_text("utf-8"))
    app = FastAPI()

    @app.get("/v1/jobs/{job_id}")
    async def get_job(job_id: str) -> dict[str, Any]:
        return document | {"id": job_id}

    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
