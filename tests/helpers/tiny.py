"""Tiny random models of four architectures, and their inputs."""

import torch
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tinylora.settings import AdapterConfig

VOCABULARY = 40
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
}
GPT2_TARGETS = ("c_attn", "c_proj", "c_fc")
FAMILIES = ("qwen2", "llama", "qwen3", "gpt2")


def model_of(family: str = "qwen2", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model with weights of a fixed seed, large enough that every map matters."""
    generator = torch.Generator().manual_seed(5)
    model = _bare(family)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 1.0 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(scale * noise if parameter.dim() > 1 else 1 + 0.1 * noise)
    if dtype == torch.float64:
        _norms_in_float64(model)
    return model.to(dtype).eval()


def _norms_in_float64(model: PreTrainedModel) -> None:
    """Transformers' RMSNorm computes in fp32 whatever the model's dtype: too coarse here."""
    for name, module in list(model.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):
            exact = nn.RMSNorm(module.weight.shape, eps=module.variance_epsilon)
            exact.weight = module.weight
            model.set_submodule(name, exact)


def _bare(family: str) -> PreTrainedModel:
    if family == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**SIZES))
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES))
    if family == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16))
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=2,
            bos_token_id=1, eos_token_id=2, attn_pdrop=0, embd_pdrop=0, resid_pdrop=0,
        )
    )  # fmt: skip


def config_of(family: str = "qwen2", **settings: object) -> AdapterConfig:
    if family == "gpt2":
        settings = {"targets": GPT2_TARGETS, **settings}
    return AdapterConfig(**{"u": 3, "num_groups": 4, **settings})


def tokens(batch: int = 3, length: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (batch, length), generator=generator)


def values_like(v: Tensor, *batch: int, size: float = 0.3, seed: int = 1) -> Tensor:
    """Values for v, or with a leading batch of them, in fp32."""
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(*batch, *v.shape, generator=generator)
