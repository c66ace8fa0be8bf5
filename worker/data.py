"""Rows to padded batches: tokenised, sorted by length, packed by a token budget. Same rows, same batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ascribe.sources.rows import Rows

_BATCH_TOKENS = 64
"""What going through a model once costs beside its tokens: layers' own overhead, weights read, programs made."""

Place = tuple[int, int]
"""Of a prediction: its row's place in the dataset, and which of the row's predictions it is."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The tokens that a language model is asked for, ``M`` in all: row after row, in each from left to right.

    Attributes:
        count_N: targets of each row of the batch, at least one.
        row_M: the target's row in the batch.
        place_M: where in its row the model predicts it: the place before it.
        weight_M: ``1 / T_n``, float64: a row's loss is the mean over its targets.
    """

    count_N: tuple[int, ...]
    row_M: Tensor
    place_M: Tensor
    weight_M: Tensor

    @classmethod
    def of(cls, count_N: Sequence[int], place_M: Tensor) -> Self:
        counts = torch.tensor(count_N, device=place_M.device)
        row_M = torch.arange(len(counts), device=place_M.device).repeat_interleave(counts)
        return cls(tuple(count_N), row_M, place_M, 1 / counts[row_M].double())


@dataclass(frozen=True, slots=True)
class Batch:
    """``positions`` are the rows' places in the slice the batches were made of.

    Without ``targets`` a row is one prediction, and ``labels_M`` has its label; with them the targets' tokens.
    """

    positions: tuple[int, ...]
    inputs: Mapping[str, Tensor]
    labels_M: Tensor
    targets: Targets | None = None

    @property
    def counts(self) -> tuple[int, ...]:
        """Predictions of each row."""
        return self.targets.count_N if self.targets else (1,) * len(self.positions)

    @property
    def tokens(self) -> int:
        """Padded ones, of all rows."""
        return self.inputs["attention_mask"].numel()

    def rows(self, start: int, stop: int) -> Batch:
        """Its rows ``start`` to ``stop``, padded as they are."""
        counts, first = self.counts, sum(self.counts[:start])
        span = slice(first, first + sum(counts[start:stop]))
        targets = self.targets and Targets.of(counts[start:stop], self.targets.place_M[span])
        inputs = {name: tensor[start:stop] for name, tensor in self.inputs.items()}
        return Batch(self.positions[start:stop], inputs, self.labels_M[span], targets)

    def span(self, row: int) -> slice:
        """Where the predictions of the batch's ``row`` stand."""
        start = sum(self.counts[:row])
        return slice(start, start + self.counts[row])

    def places(self, start: int = 0) -> list[Place]:
        """Of all predictions; ``start`` is the place in the dataset of the slice that ``positions`` count from."""
        counted = zip(self.positions, self.counts, strict=True)
        return [(start + position, index) for position, count in counted for index in range(count)]

    def mean_by_row(self, value_M: Tensor) -> Tensor:
        """Of one value for each prediction, the mean over each row's, ``[N]``."""
        if self.targets is None:
            return value_M
        total_N = value_M.new_zeros(len(self.positions))
        return total_N.index_add(0, self.targets.row_M, value_M * self.targets.weight_M.to(value_M))


def make_batches(
    rows: Rows,
    start: int,
    stop: int,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    token_budget: int,
    device: str,
) -> list[Batch]:
    """Batches of ``rows[start:stop]``, each at most ``token_budget`` padded tokens (or a single longer row)."""
    if rows.completions is None:
        pairs = list(rows.text_pairs[start:stop]) if rows.text_pairs else None
        encoded = tokenizer(list(rows.texts[start:stop]), pairs, truncation=True, max_length=max_length)
        columns = dict(encoded)
        targets: list[range] | None = None
    else:
        tokens, targets = encode(rows.texts[start:stop], rows.completions[start:stop], tokenizer, max_length)
        columns = {"input_ids": tokens, "attention_mask": [[1] * len(ids) for ids in tokens]}
    lengths = [len(ids) for ids in columns["input_ids"]]
    batches = []
    for positions in pack(lengths, token_budget):
        padded = tokenizer.pad(
            {name: [column[p] for p in positions] for name, column in columns.items()},
            return_tensors="pt",
            padding_side=None if targets is None else "right",
        )
        inputs = {name: tensor.to(device) for name, tensor in padded.items()}
        if targets is None:
            labels_N = torch.tensor([rows.labels[start + p] for p in positions], device=device)
            batches.append(Batch(positions, inputs, labels_N))
        else:
            batches.append(_with_targets(positions, inputs, [targets[p] for p in positions]))
    return batches


def encode(
    prompts: Sequence[str], completions: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[list[int]], list[range]]:
    """Tokens of every row, prompt and completion joined and cut at ``max_length``, and which of them are targets.

    The two are tokenised apart, so that the border between them does not depend on what stands beside it. Special
    tokens are those that the tokenizer puts before a prompt, and those that the texts spell. The first token of a row
    has nothing to be predicted from: it is no target.
    """
    # What a tokenizer puts after a text would stand between prompt and completion.
    before = _put_before(tokenizer)
    given = tokenizer(list(prompts), add_special_tokens=False, verbose=False)["input_ids"]
    said = tokenizer(list(completions), add_special_tokens=False, verbose=False)["input_ids"]
    tokens = [[*before, *prompt, *completion][:max_length] for prompt, completion in zip(given, said, strict=True)]
    firsts = [max(1, len(before) + len(prompt)) for prompt in given]
    return tokens, [range(min(first, len(ids)), len(ids)) for ids, first in zip(tokens, firsts, strict=True)]


def _put_before(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    marked: list[int] = tokenizer("a")["input_ids"]
    plain: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = [at for at in range(len(marked) - len(plain) + 1) if marked[at : at + len(plain)] == plain]
    return marked[: starts[0]] if starts else []


def _with_targets(positions: tuple[int, ...], inputs: Mapping[str, Tensor], targets: Sequence[range]) -> Batch:
    tokens_NT = inputs["input_ids"]
    place_M = torch.tensor(list(chain.from_iterable(targets)), device=tokens_NT.device) - 1
    found = Targets.of([len(target) for target in targets], place_M)
    return Batch(positions, inputs, tokens_NT[found.row_M, place_M + 1], found)


def pack(lengths: Sequence[int], token_budget: int) -> list[tuple[int, ...]]:
    """Positions grouped so that rows of like length share a batch, by the cheapest of all ways to cut their order.

    A batch costs its padded tokens, and as much as some tokens beside: few rows of many lengths go in several batches,
    which are less than one with all padded to the longest.
    """
    order = sorted(range(len(lengths)), key=lambda position: (lengths[position], position))
    cost, first = [0], [0]  # of the first rows of the order: the least they cost, and where their last batch begins
    for stop, position in enumerate(order, 1):
        # Sorted by length: the last row is the longest of its batch, and may be longer than the budget by itself.
        fitting = max(1, token_budget // max(1, lengths[position]))
        ways = (
            (cost[start] + (stop - start) * lengths[position] + _BATCH_TOKENS, start)
            for start in range(max(0, stop - fitting), stop)
        )
        least, start = min(ways)
        cost.append(least)
        first.append(start)
    groups: list[tuple[int, ...]] = []
    stop = len(order)
    while stop:
        groups.append(tuple(order[first[stop] : stop]))
        stop = first[stop]
    return groups[::-1]
