"""Writes a tiny Llama as a GGUF file in the way llama.cpp's converter does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from tests.support.tiny import SENTENCE

LAYERS, HEADS, KV_HEADS = 2, 2, 1


def tiny_llama(vocabulary: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": LAYERS, "max_position_embeddings": 96}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS}
    tokens = {"bos_token_id": 0, "eos_token_id": 1}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=True, **(sizes | heads | tokens))  # type: ignore[arg-type]
    )


def bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|start|>", "<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([SENTENCE] * 3, trainer)
    return tokenizer


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    *,
    kind: str = "F32",
    settings: Mapping[str, int] | None = None,
    tensors: Mapping[str, Any] | None = None,
) -> None:
    """Matrices as ``kind``, vectors as F32. ``settings``, ``tensors``: more of them."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.hidden_size // HEADS)
    writer.add_vocab_size(config.vocab_size)
    for name, value in (settings or {}).items():
        writer.add_uint32(name, value)
    content = json.loads(tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(content["vocab"], key=content["vocab"].__getitem__))
    writer.add_token_types([3 if index < 2 else 1 for index in range(len(content["vocab"]))])
    writer.add_token_merges([" ".join(merge) for merge in content["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    for name, parameter in model.named_parameters():
        module, _, suffix = name.rpartition(".")
        stored = _permuted(name, parameter.detach().numpy())
        quantised = gguf.GGMLQuantizationType[kind if stored.ndim == 2 else "F32"]
        data = gguf.quantize(stored, quantised)
        writer.add_tensor(f"{names.get_name(module)}.{suffix}", data, raw_dtype=quantised)
    for name, array in (tensors or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def round_matrices(model: LlamaForCausalLM, kind: str) -> None:
    """Make the weights those that the file stands for."""
    quantised = gguf.GGMLQuantizationType[kind]
    for parameter in model.parameters():
        if parameter.ndim == 2:
            rounded = gguf.dequantize(gguf.quantize(parameter.detach().numpy(), quantised), quantised)
            parameter.data.copy_(torch.from_numpy(rounded))


def _permuted(name: str, weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """llama.cpp interleaves the halves of each head that rotary embeddings turn."""
    heads = HEADS if ".q_proj." in name else KV_HEADS if ".k_proj." in name else None
    if heads is None:
        return weight
    return weight.reshape(heads, 2, len(weight) // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)
