"""What a model predicts, by the shapes of its tensors: a classifier's labels, a language model's vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ascribe.errors import InvalidInput
from ascribe.sources.safetensors_header import TensorInfo

HEADS = ("classifier", "score")
OUTPUT_EMBEDDINGS = ("lm_head", "embed_out")
INPUT_EMBEDDINGS = ("embed_tokens", "embed_in", "wte", "word_embeddings")


def is_output_embedding(tensor: str) -> bool:
    return tensor.partition(".")[0] in OUTPUT_EMBEDDINGS


def is_tied(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether a language model's output embeddings are those of the input: said, or seen from what was not saved."""
    return bool(config.get("tie_word_embeddings")) or not any(map(is_output_embedding, tensors))


def vocabulary(tensors: Mapping[str, TensorInfo]) -> int:
    """Rows of the output embeddings, or of the input's where they are tied. Raises InvalidInput: there are none."""
    for modules in (OUTPUT_EMBEDDINGS, INPUT_EMBEDDINGS):
        for name, info in tensors.items():
            if name.removesuffix(".weight").rpartition(".")[2] in modules and len(info.shape) == 2:
                return info.shape[0]
    raise InvalidInput.at("/model/base", "incomplete_checkpoint", "the base holds no token embeddings: save it whole")


def count_labels(with_head: Sequence[Mapping[str, TensorInfo]], pointer: str) -> int:
    """Rows of the last matrix of the classification head, in the adapter or else in the base."""
    for tensors in with_head:
        shapes = [
            info.shape
            for name, info in sorted(tensors.items())
            if name.split(".")[0] in HEADS and name.endswith("weight") and len(info.shape) == 2
        ]
        if shapes:
            # Two-layer heads (classifier.dense, classifier.out_proj): the output layer sorts last.
            if shapes[-1][0] < 2:
                raise InvalidInput.at(
                    pointer,
                    "one_label",
                    "the head has one output, a regression: cross-entropy is of two labels or more",
                )
            return shapes[-1][0]
    message = {
        "/model/base": "the base holds no trained classification head: name an adapter that brings one",
        "/model/adapter": "neither adapter nor base holds a trained classification head: save it with the adapter "
        "(modules_to_save)",
    }[pointer]
    raise InvalidInput.at(pointer, "no_trained_head", message)


def label_names(configs: Sequence[Mapping[str, Any]], num_labels: int) -> tuple[str, ...] | None:
    for config in configs:
        names = config.get("id2label")
        if isinstance(names, dict) and set(names) == {str(i) for i in range(num_labels)}:
            return tuple(str(names[str(i)]) for i in range(num_labels))
    return None
