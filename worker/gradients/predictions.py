"""A model's predictions for a batch: one for every row of a classifier, one for every target of a language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.func import functional_call

from worker.data import Batch, Targets


def predict(model: nn.Module, batch: Batch, weights: Mapping[str, Tensor] | None = None) -> Tensor:
    """Logits ``[M, C]``; ``weights`` stand in for the parameters of these names.

    A language model's are computed at its targets alone: those of all tokens of a batch would take more memory than
    everything else.
    """
    inputs = dict(batch.inputs) if batch.targets is None else {**batch.inputs, "use_cache": False}
    with _at_targets(model, batch.targets):
        output = model(**inputs) if weights is None else functional_call(model, dict(weights), kwargs=inputs)
    logits: Tensor = output.logits
    return logits if batch.targets is None else logits.squeeze(0)


@contextmanager
def _at_targets(model: nn.Module, targets: Targets | None) -> Iterator[None]:
    """While it is open, what leads to the logits sees the hidden states of the targets, as one row: ``[1, M, H]``.

    Models differ in what they do to the logits; what goes into their output embeddings is the same in all.
    """
    if targets is None:
        yield
        return
    head: nn.Module = model.get_output_embeddings()  # type: ignore[operator]  # every language model of transformers has it

    def pick(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor]:
        (hidden_NTH,) = arguments
        return (hidden_NTH[targets.row_M, targets.place_M].unsqueeze(0),)

    handle = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()
