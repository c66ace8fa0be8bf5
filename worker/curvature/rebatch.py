"""Rows picked out of padded batches, packed and padded anew: a drawn batch runs as one, not as many of one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from worker.data import Batch, Targets, pack


class Rebatch:
    """``batches`` with the rows numbered as they stand there, one batch after the other, and any choice of the rows.

    ``pad_token`` fills what is shorter; nothing depends on it but the positions that some models count from it.
    """

    def __init__(self, batches: Sequence[Batch], pad_token: int) -> None:
        if not batches:
            raise ValueError("no batches: there are no rows to take products over")
        stops = torch.tensor([len(batch.positions) for batch in batches]).cumsum(0).tolist()
        self.batches = tuple(
            replace(batch, positions=tuple(range(stop - len(batch.positions), stop)))
            for batch, stop in zip(batches, stops, strict=True)
        )
        self.count: int = stops[-1]
        self._owner_N = [batch for batch in self.batches for _ in batch.positions]
        masks = [batch.inputs["attention_mask"] for batch in self.batches]
        assert all(bool(mask_NT[:, 0].all()) for mask_NT in masks), "rows are padded on the right"
        self._length_N = torch.cat([mask_NT.sum(dim=1) for mask_NT in masks]).tolist()
        self._tokens = max(mask_NT.numel() for mask_NT in masks)
        self._pad_token = pad_token

    def pick(self, indices: Sequence[int]) -> list[Batch]:
        """The rows ``indices`` in batches no larger than the largest of the given ones; positions are the indices."""
        groups = pack([self._length_N[index] for index in indices], self._tokens)
        return [self._batch([indices[place] for place in group]) for group in groups]

    def _batch(self, indices: Sequence[int]) -> Batch:
        names = self._owner_N[indices[0]].inputs
        inputs = {name: self._padded(name, indices) for name in names}
        places = [self._row(index) for index in indices]
        spans = [owner.span(place) for owner, place in places]
        labels_M = torch.cat([owner.labels_M[span] for (owner, _), span in zip(places, spans, strict=True)])
        return Batch(tuple(indices), inputs, labels_M, _targets([owner for owner, _ in places], spans))

    def _padded(self, name: str, indices: Sequence[int]) -> Tensor:
        rows = []
        for index in indices:
            owner, place = self._row(index)
            rows.append(owner.inputs[name][place, : self._length_N[index]])
        fill = self._pad_token if name == "input_ids" else 0
        return pad_sequence(rows, batch_first=True, padding_value=fill)

    def _row(self, index: int) -> tuple[Batch, int]:
        owner = self._owner_N[index]
        return owner, index - owner.positions[0]


def _targets(owners: Sequence[Batch], spans: Sequence[slice]) -> Targets | None:
    """Those of rows out of several batches: places in a row, which stay what they are."""
    parts = [owner.targets.place_M[span] for owner, span in zip(owners, spans, strict=True) if owner.targets]
    return Targets.of([len(part) for part in parts], torch.cat(parts)) if parts else None
