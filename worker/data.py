"""Rows to padded batches: tokenised, sorted by length, packed by a token budget. Same rows, same batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ascribe.sources.rows import Rows


@dataclass(frozen=True, slots=True)
class Batch:
    """``positions`` are the rows' places in the slice the batches were made of."""

    positions: tuple[int, ...]
    inputs: Mapping[str, Tensor]
    labels_N: Tensor


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
    pairs = list(rows.text_pairs[start:stop]) if rows.text_pairs else None
    encoded = tokenizer(list(rows.texts[start:stop]), pairs, truncation=True, max_length=max_length)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    batches = []
    for positions in pack(lengths, token_budget):
        padded = tokenizer.pad(
            {name: [column[p] for p in positions] for name, column in encoded.items()}, return_tensors="pt"
        )
        labels_N = torch.tensor([rows.labels[start + p] for p in positions], device=device)
        batches.append(Batch(positions, {name: tensor.to(device) for name, tensor in padded.items()}, labels_N))
    return batches


def pack(lengths: Sequence[int], token_budget: int) -> list[tuple[int, ...]]:
    """Positions grouped so that rows of like length share a batch and little is spent on padding."""
    order = sorted(range(len(lengths)), key=lambda position: (lengths[position], position))
    groups: list[list[int]] = []
    for position in order:
        # Sorted by length: the newest row is the longest of its batch.
        if groups and lengths[position] * (len(groups[-1]) + 1) <= token_budget:
            groups[-1].append(position)
        else:
            groups.append([position])
    return [tuple(group) for group in groups]
