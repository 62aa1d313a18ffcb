"""The shapes of real models, without their weights."""

from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

SHAPES = {  # hidden size, MLP size, key and value size, layers
    "3B": (2048, 11008, 256, 36),
    "7B": (3584, 18944, 512, 28),
}


def skeleton(size: str, vocab_size: int = 64) -> Any:
    """Qwen2.5 of this size on the meta device."""
    d, ff, kv, layers = SHAPES[size]
    config = Qwen2Config(
        hidden_size=d,
        intermediate_size=ff,
        num_hidden_layers=layers,
        num_attention_heads=d // 128,
        num_key_value_heads=kv // 128,
        vocab_size=vocab_size,
        tie_word_embeddings=size == "3B",
    )
    with torch.device("meta"):
        return Qwen2ForCausalLM(config)
