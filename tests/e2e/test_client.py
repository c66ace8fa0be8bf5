"""The clients and the command line against the real service: Arrow, files, uploads, waiting, comparing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
import pytest
import yaml

from ascribe.client import AsyncClient, Format, errors
from ascribe.job import Job
from ascribe.result import ScoredRow
from examples.demo.finetune import ROWS
from tests.e2e.conftest import MakeSpec, System

ROW_FIELDS = ["index", "id", "label", "text", "score"]


@pytest.fixture
def jobs(system: System, make_spec: MakeSpec) -> tuple[Job, Job]:
    """Two methods over the same rows; the keys make them the same two jobs for every test."""
    return (
        system.client.create_and_wait(make_spec("gfim", "cholesky"), idempotency_key="client-first"),
        system.client.create_and_wait(make_spec("none", "identity"), idempotency_key="client-second"),
    )


def run(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    command = [sys.executable, "-c", "from ascribe.cli import main; main()", *arguments]
    return subprocess.run(
        command, env=os.environ | {"ASCRIBE_URL": system.stack.url}, capture_output=True, text=True, timeout=120
    )


def test_a_table_a_frame_and_batches_hold_what_the_pages_hold(system: System, jobs: tuple[Job, Job]) -> None:
    pages = [row.model_dump() for row in system.client.scores(jobs[0].id)]
    table = system.client.scores_table(jobs[0].id)
    assert table.column_names == ROW_FIELDS
    assert table.to_pylist() == pages
    assert [row for batch in system.client.scores_batches(jobs[0].id) for row in batch.to_pylist()] == pages
    lowest = system.client.scores_frame(jobs[0].id, order="opponents", top_k=5)
    assert list(lowest["score"]) == sorted(row["score"] for row in pages)[:5]
    by_train_row = system.client.scores_table(jobs[0].id, train_id=pages[0]["id"])
    assert by_train_row.num_rows == _rows(jobs[0], "validation_rows")
    matrix = system.client.scores_table(jobs[0].id, vector="all")
    assert matrix.num_rows == len(pages)
    assert matrix.num_columns == by_train_row.num_rows + 4


def _rows(job: Job, which: str) -> int:
    assert job.result is not None
    return int(getattr(job.result, which))


def test_downloads_hold_the_same_in_every_format(system: System, jobs: tuple[Job, Job], tmp_path: Path) -> None:
    def read(form: Format) -> list[dict[str, Any]]:
        path = system.client.download(jobs[0].id, tmp_path / form, format=form)
        if form == "ndjson":
            return [json.loads(line) for line in path.read_text().splitlines()]
        if form == "arrow":
            with pyarrow.ipc.open_stream(path.read_bytes()) as reader:
                return reader.read_all().to_pylist()
        table = pyarrow.csv.read_csv(path) if form == "csv" else pyarrow.parquet.read_table(path)
        return table.to_pylist()

    pages = {row.id: row.score for row in system.client.scores(jobs[0].id)}
    for form in ("ndjson", "csv", "parquet", "arrow"):
        assert {row["id"]: row["score"] for row in read(form)} == pytest.approx(pages)
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(errors.NotFound):
        system.client.download("job_" + "0" * 32, tmp_path / "none.csv", format="csv")
    assert not (tmp_path / "none.csv").exists()


def test_an_uploaded_dataset_gives_the_scores_of_its_file(
    system: System, jobs: tuple[Job, Job], make_spec: MakeSpec
) -> None:
    file = system.data_root / ROWS / "train.jsonl"
    dataset = system.client.upload(file)
    assert system.client.upload(file) == dataset
    spec = make_spec("gfim", "cholesky", train={"source": {"kind": "dataset", "id": dataset}})
    job = system.client.create_and_wait(spec)
    assert system.client.scores(job.id) == system.client.scores(jobs[0].id)


def test_the_async_client_does_the_same_side_by_side(system: System, jobs: tuple[Job, Job], tmp_path: Path) -> None:
    async def main() -> list[ScoredRow]:
        async with AsyncClient(system.stack.url) as client:
            first, table, path, waited = await asyncio.gather(
                client.scores(jobs[0].id),
                client.scores_table(jobs[0].id),
                client.download(jobs[0].id, tmp_path / "scores.parquet"),
                client.wait(jobs[1].id),
            )
            rows = [row async for batch in client.scores_batches(jobs[0].id) for row in batch.to_pylist()]
            assert [row.model_dump() for row in first] == table.to_pylist() == rows
            assert pyarrow.parquet.read_table(path).num_rows == len(first)
            assert waited.status == "succeeded"
            assert await client.upload(system.data_root / ROWS / "train.jsonl")
            assert [event.type async for event in client.events(jobs[0].id)][-1] == "succeeded"
            return first

    assert asyncio.run(main()) == system.client.scores(jobs[0].id)


def test_a_short_job_is_noticed_at_once(system: System, make_spec: MakeSpec) -> None:
    job = system.client.wait(system.client.create(make_spec(name="noticed")).id)
    noticed = time.time()
    assert job.finished_at is not None
    assert noticed - job.finished_at.timestamp() < 0.9  # polling every second would take 0.5 on average


def test_a_query_asks_a_finished_job_about_a_new_row(system: System, jobs: tuple[Job, Job]) -> None:
    validation = {"source": {"kind": "inline", "rows": [{"id": "new", "text": "undo a commit", "label": "coding"}]}}
    asked = system.client.wait(system.client.query(jobs[0].id, validation, name="one more").id)
    assert asked.status == "succeeded"
    assert system.client.scores(asked.id, validation_id="new", top_k=1)


def test_a_yaml_spec_from_the_shell_to_the_comparison(
    system: System, jobs: tuple[Job, Job], make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(make_spec(name="from a file")))
    submitted = run(system, "submit", str(spec), "--set", "solver.kind=cholesky", "--wait")
    assert submitted.returncode == 0, submitted.stderr
    job_id = submitted.stdout.strip()
    assert system.client.get(job_id).spec.solver.kind == "cholesky"
    assert run(system, "watch", job_id).returncode == 0
    refused = run(system, "submit", str(spec), "--set", "damping.absolute=1", "--set", "solver.kind=lissa")
    assert refused.returncode == 2
    assert "--set solver.kind /solver/kind: " in refused.stderr
    same = json.loads(run(system, "compare", job_id, jobs[0].id, "--json").stdout)
    assert same["pairs"][0] == {"first": 0, "second": 1, "spearman": 1.0, "proponents": 1.0, "opponents": 1.0}
    assert same["disputes"] == []
    other = json.loads(run(system, "compare", *(job.id for job in jobs), "--json", "--disputes", "3").stdout)
    assert 0 < other["pairs"][0]["spearman"] < 1
    assert len(other["disputes"]) == 3
    page = run(system, "report", job_id, "-o", str(tmp_path / "report.html"))
    assert page.returncode == 0
    assert "<html" in (tmp_path / "report.html").read_text()
