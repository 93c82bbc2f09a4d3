"""Tiny models of every family: real configs, random weights, a real byte-level tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.model.families import FAMILIES as ROWS

FAMILIES = tuple(ROWS)
HEADS, KV_HEADS = 4, 2
_COMMON = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "tie_word_embeddings": False,
}
# What makes a family itself, if the common values do not; gemma3 needs six blocks to have one of full
# attention.
_OWN: dict[str, dict[str, Any]] = {
    "llama": {"rms_norm_eps": 1e-5},
    "mistral": {"sliding_window": 16, "rms_norm_eps": 1e-5},
    "smollm3": {"num_hidden_layers": 4, "tie_word_embeddings": True},
    "qwen2": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    "qwen3": {"head_dim": 32, "tie_word_embeddings": True},
    "gemma2": {
        "head_dim": 32,
        "sliding_window": 16,
        "query_pre_attn_scalar": 32,
        "tie_word_embeddings": True,
    },
    "gemma3_text": {
        "num_hidden_layers": 6,
        "head_dim": 32,
        "sliding_window": 16,
        "query_pre_attn_scalar": 32,
        "tie_word_embeddings": True,
    },
    "phi3": {"original_max_position_embeddings": 256, "rms_norm_eps": 1e-5},
}
TEXT = """
Pruning removes the parts of a network that its answers do not need. A gardener takes the branches that \
bear no fruit, so that
the light reaches those that do; too much at once and the tree dies. In 1990 a first study cut 30 of every \
100 weights, and in
2023 a large language model lost half of them in minutes. What is cut must be measured: the same text, \
before and after it.
The device decides: a phone with 2048 megabytes of memory asks for another model than a server does.
"""
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{%"
    " endfor %}"
)


def save_tiny(family: str, folder: Path, shard_size: str | None, config: dict[str, Any]) -> None:
    """Write a random model of `family` and its tokenizer; `config` overrides the tiny default."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = _byte_level_tokenizer()
    values = {**_COMMON, **_OWN.get(family, {}), "vocab_size": len(tokenizer), **config}
    dtype = getattr(torch, values.pop("dtype", "float32"))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **values))
    _randomise(model)
    options = {"max_shard_size": shard_size} if shard_size else {}
    model.to(dtype).save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def _randomise(model: nn.Module) -> None:
    """Give every parameter random values, so that a mistake in names, layout or offset shows."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            parameter.add_(noise * 0.1)
        else:
            parameter.copy_(noise / parameter.shape[1] ** 0.5)


def _byte_level_tokenizer() -> Any:
    """Train a tokenizer that cuts text as SmolLM's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=_SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([TEXT], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=_SPECIAL[0],
        eos_token=_SPECIAL[2],
        pad_token=_SPECIAL[2],
        model_max_length=256,
    )
    tokenizer.chat_template = _TEMPLATE
    return tokenizer
