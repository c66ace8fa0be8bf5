"""A language model's gradient products by bergson and by us: seconds and how far the scores agree.

Both get whole texts, without a prompt, so that both see the same tokens; a row's loss is the mean over them. Rows are
those of `make demo-llm`, and others three times as long.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from transformers import AutoTokenizer

from benchmarks import language_model
from benchmarks.cells import Cell, cell, seen_on, slug, table
from benchmarks.peers.environment import environment, versions
from benchmarks.peers.exchange import NEW_VALIDATION, TRAIN, VALIDATION, Exchange
from benchmarks.peers.lds import Array, rank_correlations
from benchmarks.peers.service import service
from examples.demo_llm.corpus import build_corpus

QUERIES, TOKENS = 16, 24
WARMING, WARMING_ROWS = "warming", 8
MAX_LENGTH = 512
PLAIN = {"curvature": {"kind": "none"}, "solver": {"kind": "identity"}}
GOAL = 0.999


@dataclass(frozen=True, slots=True)
class Precision:
    """Of the model; gradients and scores are float32 on both sides."""

    ours: str
    theirs: str


FLOAT, HALF = Precision("float32", "fp32"), Precision("bfloat16", "bf16")


def compare(folder: Path, *, quick: bool) -> Iterator[Table]:
    """SmolLM2 with LoRA of rank 8."""
    rows = 16 if quick else 200
    for what, write, precision in (
        ("the demo's rows", _short_texts, FLOAT),
        ("the demo's rows", _short_texts, HALF),
        ("longer rows", _long_texts, FLOAT),
    ):
        home = folder / f"language-{slug(what)}-{rows}-{precision.ours}"
        exchange = _exchange(home, rows, write)
        yield _comparison(exchange, precision, f"{what}, {rows} train x {QUERIES} validation rows")


def _comparison(exchange: Exchange, precision: Precision, what: str) -> Table:
    home = exchange.folder
    theirs = cell(home / "bergson.json", lambda: _theirs(home, precision))
    ours = cell(home / "ours.json", lambda: _ours(exchange, precision))
    result = table(
        f"SmolLM2-135M + LoRA r=8, gradient products, {precision.ours}, {what}, {_tokens(home)} tokens in all",
        "", "bergson: build and score", "ours, warm", "ratio",
    )  # fmt: skip
    for step in ("first", "second"):
        result.add_row(
            f"{step}, seconds of the processor (of the clock)",
            *(f"{side[step]['processor']:.1f} ({side[step]['clock']:.1f})" for side in (theirs, ours)),
            f"{ours[step]['processor'] / theirs[step]['processor']:.2f}",
        )
    agreement = np.concatenate([_agreement(exchange, f"-{step}") for step in ("first", "second")])
    result.add_row("Spearman, mean (least)", "", f"{agreement.mean():.6f} ({agreement.min():.6f})", f"≥ {GOAL}")
    result.caption = f"{seen_on([theirs, ours])}; {theirs['versions']}"
    return result


def _tokens(home: Path) -> int:
    """Of the train and the first validation rows."""
    tokenizer = AutoTokenizer.from_pretrained(home / language_model.BASE, local_files_only=True)
    texts = [
        json.loads(line)["text"]
        for name in (TRAIN, VALIDATION)
        for line in (home / f"{name}-texts.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return sum(map(len, tokenizer(texts)["input_ids"]))


def _exchange(home: Path, rows: int, write: Callable[[Path, Mapping[str, int]], Mapping[str, list[str]]]) -> Exchange:
    exchange = Exchange(home, language_model.BASE, language_model.ADAPTER, (), max_length=MAX_LENGTH)
    if (home / f"{TRAIN}.jsonl").exists():
        return exchange
    home.mkdir(parents=True, exist_ok=True)
    language_model.prepare(home)
    counts = {WARMING: WARMING_ROWS, NEW_VALIDATION: QUERIES, VALIDATION: QUERIES, TRAIN: rows}
    for name, texts in write(home, counts).items():
        exchange.write_rows(name, [{"prompt": "", "completion": text} for text in texts])
        exchange.write_rows(f"{name}-texts", [{"text": text} for text in texts])
    return exchange


def _short_texts(_: Path, counts: Mapping[str, int]) -> dict[str, list[str]]:
    texts = [row.prompt + row.completion for row in build_corpus(0, sum(counts.values()))]
    return {name: [texts.pop(0) for _ in range(count)] for name, count in counts.items()}


def _long_texts(home: Path, counts: Mapping[str, int]) -> dict[str, list[str]]:
    found = {}
    for name, count in counts.items():
        path = home / language_model.write_rows(home, name, count, TOKENS)
        rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        found[name] = [row["prompt"] + row["completion"] for row in rows]
    return found


def _theirs(home: Path, precision: Precision) -> Cell:
    adapter = home / "bergson-adapter"
    shutil.copytree(home / language_model.ADAPTER, adapter, dirs_exist_ok=True)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str((home / language_model.BASE).absolute())
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    for path in (home / language_model.BASE).glob("tokenizer*"):
        shutil.copy(path, adapter)
    found: dict[str, Any] = {"versions": versions()}
    for step, name in (("first", VALIDATION), ("second", NEW_VALIDATION)):
        began = time.perf_counter(), _children()
        query, scores = (home / f"bergson-{what}-{step}" for what in ("query", "scores"))
        for folder in (query, scores):
            shutil.rmtree(folder, ignore_errors=True)
        _bergson(adapter, precision, "build", query, home / f"{name}-texts.jsonl")
        train = home / f"{TRAIN}-texts.jsonl"
        _bergson(adapter, precision, "score", scores, train, "--query_path", str(query), "--score", "individual")
        found[step] = {"clock": time.perf_counter() - began[0], "processor": _children() - began[1]}
    return found


def _bergson(adapter: Path, precision: Precision, command: str, output: Path, rows: Path, *more: str) -> None:
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    env.pop("PYTHONPATH", None)
    run: list[str | Path] = [environment() / "bin/bergson", command, output, "--model", adapter, "--dataset", rows]
    # `score` has two precisions, this one and that of the products, which is float32.
    numbers = "--precision" if command == "build" else "--index_cfg.precision", precision.theirs
    options = ("--truncation", "--token_batch_size", "512", "--loss_reduction", "mean", "--nproc_per_node", "1")
    subprocess.run([*run, *numbers, *options, *more], check=True, env=env, cwd=output.parent, capture_output=True)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _ours(exchange: Exchange, precision: Precision) -> Cell:
    spec = partial(exchange.spec, dict(PLAIN), dtype=precision.ours)
    with service(exchange.folder) as ascribe:
        ascribe.ask(spec(train=WARMING, validation=WARMING))
        first = ascribe.ask(spec())
        second = ascribe.ask_again(first.job, NEW_VALIDATION)
    found = {}
    for step, asked in (("first", first), ("second", second)):
        exchange.save_scores(f"ours-{step}", asked.score_QN)
        found[step] = {"clock": asked.seconds, "processor": asked.processor_seconds}
    return found


def _agreement(exchange: Exchange, which: str) -> Array:
    folder = exchange.folder / f"bergson-scores{which}"
    info = json.loads((folder / "info.json").read_text())
    layout = np.dtype({key: info["dtype"][key] for key in ("names", "formats", "offsets", "itemsize")})  # type: ignore[call-overload]
    scores = np.fromfile(folder / "scores.bin", dtype=layout)
    theirs_QN = np.stack([scores[f"score_{query}"] for query in range(info["num_scores"])]).astype(float)
    return rank_correlations(theirs_QN, exchange.scores(f"ours{which}"))
