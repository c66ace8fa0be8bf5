"""Per-example gradients beside a plain forward and backward, scoring beside a bare product of the same shapes.

    python -m benchmarks [--rows 512] [--queries 16]

Ratios of one run are what to quote: seconds of a small shared machine drift. The floor of gradient collection is one
forward and one backward pass of the same batches; of scoring, one matrix product over gradients that lie in memory.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy

from ascribe.settings import Settings
from ascribe.sources.checkpoints import Checkpoint, inspect_checkpoint
from ascribe.sources.rows import Labels, read_rows
from ascribe.spec import DatasetSpec, FileSource, ModelSpec, ParametersSpec
from examples.demo.finetune import ADAPTER, BASE, prepare
from worker.data import Batch, make_batches
from worker.gradients.per_example import PerExampleGradients
from worker.models import LoadedModel, load_model
from worker.scores.influence import influence

HOME = Path(".ascribe/demo/seed-0/data")
TOKENS = 32
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--queries", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    console.print(f"{platform.machine()}, torch {torch.__version__}, one thread, best of {REPEATS}")
    table = Table("what", "ours, s", "floor, s", "ours / floor speed")
    for name, ours, floor in (*_gradients(options.rows), _scoring(options.rows, options.queries)):
        table.add_row(name, f"{ours:.2f}", f"{floor:.2f}", f"{floor / ours:.2f}")
    console.print(table)


def _gradients(count: int) -> Iterator[tuple[str, float, float]]:
    spec = ModelSpec(base=BASE, adapter=ADAPTER)
    root = prepare(HOME)
    checkpoint = inspect_checkpoint(root, spec, ParametersSpec())
    loaded = load_model(checkpoint, spec, attention="sdpa", device="cpu")
    batches = _long_rows(count, checkpoint, loaded)
    gradients = PerExampleGradients(loaded.model, checkpoint.blocks)
    ours = _best(lambda: [gradients(batch) for batch in batches])
    yield "per-example gradients / forward + backward", ours, _best(lambda: _plain(loaded.model, batches))
    few = batches[:: max(1, len(batches) // 4)]
    share = sum(len(batch.positions) for batch in few) / count
    one_by_one = _best(lambda: _one_by_one(loaded.model, few)) / share
    yield "per-example gradients / one backward each", ours, one_by_one


def _long_rows(count: int, checkpoint: Checkpoint, loaded: LoadedModel) -> list[Batch]:
    """``count`` rows of the demo, each repeated until it has 32 tokens or more."""
    dataset = DatasetSpec(source=FileSource(kind="file", path="topics/train.jsonl"), limit=count)
    labels = Labels(checkpoint.num_labels, checkpoint.label_names)
    rows = read_rows(Settings(data_root=HOME), dataset, "/train", labels)
    texts = tuple(" ".join([text] * -(-TOKENS // max(1, len(text.split())))) for text in rows.texts)
    longer = type(rows)(rows.ids, texts, None, rows.labels, rows.sha256)
    return make_batches(longer, 0, len(rows), loaded.tokenizer, max_length=128, token_budget=1024, device="cpu")


def _plain(model: torch.nn.Module, batches: Sequence[Batch]) -> None:
    for batch in batches:
        model.zero_grad(set_to_none=True)
        cross_entropy(model(**batch.inputs).logits, batch.labels_N).backward()  # type: ignore[no-untyped-call]


def _one_by_one(model: torch.nn.Module, batches: Sequence[Batch]) -> None:
    for batch in batches:
        for i in range(len(batch.positions)):
            model.zero_grad(set_to_none=True)
            inputs = {name: value[i : i + 1] for name, value in batch.inputs.items()}
            cross_entropy(model(**inputs).logits, batch.labels_N[i : i + 1]).backward()  # type: ignore[no-untyped-call]


def _scoring(rows: int, queries: int) -> tuple[str, float, float]:
    parameters = 24 * 8 * 384
    with TemporaryDirectory() as folder:
        train_NP = _mapped(Path(folder) / "train", rows, parameters)
        ihvp_QP = torch.randn(queries, parameters, dtype=torch.float64)
        in_memory, bare = train_NP.clone(), ihvp_QP.float()
        ours = _best(lambda: influence([train_NP], ihvp_QP, "all"))
        return f"scoring {rows} x {queries} from disk / bare float32 product", ours, _best(lambda: bare @ in_memory.T)


def _mapped(path: Path, rows: int, parameters: int) -> Tensor:
    torch.randn(rows, parameters).numpy().tofile(path)
    return torch.from_file(str(path), shared=False, size=rows * parameters).view(rows, parameters)


def _best(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    main()
