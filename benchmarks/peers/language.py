"""A language model's gradient products by bergson and by us: seconds and how far the scores agree.

Both get whole texts, without a prompt, so that both see the same tokens; a row's loss is the mean over them.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks import language_model
from benchmarks.cells import Cell, cell, seen_on, table
from benchmarks.peers.environment import environment, versions
from benchmarks.peers.exchange import NEW_VALIDATION, TRAIN, VALIDATION, Exchange
from benchmarks.peers.lds import Array, rank_correlations
from benchmarks.peers.service import service

QUERIES, TOKENS = 16, 24
WARMING, WARMING_ROWS = "warming", 8
MAX_LENGTH = 512
PLAIN = {"curvature": {"kind": "none"}, "solver": {"kind": "identity"}}
GOAL = 0.999


def compare(folder: Path, *, quick: bool) -> Iterator[Table]:
    """SmolLM2 with LoRA of rank 8."""
    rows = 16 if quick else 200
    home = folder / f"language-{rows}"
    exchange = _exchange(home, rows)
    theirs = cell(home / "bergson.json", lambda: _theirs(home))
    ours = cell(home / "ours.json", lambda: _ours(exchange))
    result = table(
        f"SmolLM2-135M + LoRA r=8, gradient products, {rows} train x {QUERIES} validation rows",
        "", "bergson: build and score", "ours, warm", "ratio",
    )  # fmt: skip
    for step in ("first", "second"):
        result.add_row(
            f"{step}, seconds of the processor (of the clock)",
            *(f"{side[step]['processor']:.1f} ({side[step]['clock']:.1f})" for side in (theirs, ours)),
            f"{ours[step]['processor'] / theirs[step]['processor']:.2f}",
        )
    agreement = np.concatenate([_agreement(home, exchange, which) for which in ("", "-new")])
    result.add_row("Spearman, mean (least)", "", f"{agreement.mean():.6f} ({agreement.min():.6f})", f"≥ {GOAL}")
    result.caption = f"{seen_on([theirs, ours])}; {theirs['versions']}"
    yield result


def _exchange(home: Path, rows: int) -> Exchange:
    exchange = Exchange(home, language_model.BASE, language_model.ADAPTER, (), max_length=MAX_LENGTH)
    if (home / f"{TRAIN}.jsonl").exists():
        return exchange
    home.mkdir(parents=True, exist_ok=True)
    language_model.prepare(home)
    for name, count in ((WARMING, WARMING_ROWS), (NEW_VALIDATION, QUERIES), (VALIDATION, QUERIES), (TRAIN, rows)):
        path = home / language_model.write_rows(home, name, count, TOKENS)
        texts = [row["prompt"] + row["completion"] for row in map(json.loads, path.read_text().splitlines())]
        exchange.write_rows(name, [{"prompt": "", "completion": text} for text in texts])
        exchange.write_rows(f"{name}-texts", [{"text": text} for text in texts])
    return exchange


def _theirs(home: Path) -> Cell:
    adapter = home / "bergson-adapter"
    shutil.copytree(home / language_model.ADAPTER, adapter, dirs_exist_ok=True)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str((home / language_model.BASE).absolute())
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    for path in (home / language_model.BASE).glob("tokenizer*"):
        shutil.copy(path, adapter)
    found: dict[str, Any] = {"versions": versions()}
    for step, name, which in (("first", VALIDATION, ""), ("second", NEW_VALIDATION, "-new")):
        began = time.perf_counter(), _children()
        query, scores = home / f"bergson-query{which}", home / f"bergson-scores{which}"
        for folder in (query, scores):
            shutil.rmtree(folder, ignore_errors=True)
        _bergson(home, adapter, "build", query, f"{name}-texts")
        _bergson(home, adapter, "score", scores, f"{TRAIN}-texts", "--query_path", str(query), "--score", "individual")
        found[step] = {"clock": time.perf_counter() - began[0], "processor": _children() - began[1]}
    return found


def _bergson(home: Path, adapter: Path, command: str, output: Path, rows: str, *more: str) -> None:
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    env.pop("PYTHONPATH", None)
    options = ("--truncation", "--token_batch_size", "512", "--loss_reduction", "mean", "--nproc_per_node", "1")
    run: list[str | Path] = [
        environment() / "bin/bergson",
        command,
        output,
        "--model",
        adapter,
        "--dataset",
        home / f"{rows}.jsonl",
    ]
    subprocess.run([*run, *options, *more], check=True, env=env, cwd=home, capture_output=True)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _ours(exchange: Exchange) -> Cell:
    with service(exchange.folder) as ascribe:
        ascribe.ask(exchange.spec(dict(PLAIN), train=WARMING))
        first = ascribe.ask(exchange.spec(dict(PLAIN)))
        second = ascribe.ask_again(first.job, NEW_VALIDATION)
    found = {}
    for step, which, asked in (("first", "", first), ("second", "-new", second)):
        exchange.save_scores(f"ours{which}", asked.score_QN)
        found[step] = {"clock": asked.seconds, "processor": asked.processor_seconds}
    return found


def _agreement(home: Path, exchange: Exchange, which: str) -> Array:
    folder = home / f"bergson-scores{which}"
    info = json.loads((folder / "info.json").read_text())
    layout = np.dtype({key: info["dtype"][key] for key in ("names", "formats", "offsets", "itemsize")})  # type: ignore[call-overload]
    scores = np.fromfile(folder / "scores.bin", dtype=layout)
    theirs_QN = np.stack([scores[f"score_{query}"] for query in range(info["num_scores"])]).astype(float)
    return rank_correlations(theirs_QN, exchange.scores(f"ours{which}"))
