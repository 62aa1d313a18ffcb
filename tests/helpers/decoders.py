"""Tiny random decoders of many architectures, made from their configurations."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from helpers.tiny import SIZES

GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "n_inner": 48}
EXPERTS = {
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "decoder_sparse_step": 1,
}  # fmt: skip
LATENT = {  # DeepSeek's attention
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 16, "head_dim": 8, "num_key_value_heads": 2,
}  # fmt: skip
LINEAR_ATTENTION = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 2,
    "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
PHI3 = {"rope_scaling": None, "original_max_position_embeddings": 64, "partial_rotary_factor": 1.0}
ALL_HEADS = {"num_key_value_heads": 2}
OF_THEIR_OWN: dict[str, dict[str, object]] = {  # what SIZES does not say of an architecture
    "apertus": {},
    "arcee": {},
    "biogpt": {},
    "bloom": {"n_layer": 2, "n_head": 2},
    "codegen": {**GPT, "num_attention_heads": 4, "rotary_dim": 4, "n_ctx": 64},
    "deepseek_v2": {**EXPERTS, **LATENT, "topk_method": "greedy"},
    "deepseek_v3": {**EXPERTS, **LATENT},
    "falcon": {"new_decoder_architecture": False, "multi_query": True},
    "gemma3_text": {},
    "glm": {},
    "glm4_moe": EXPERTS,
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "gpt_neo": {"num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {},
    "gpt_oss": EXPERTS,
    "gptj": {**GPT, "rotary_dim": 8},
    "granitemoe": EXPERTS,
    "lfm2": {},
    "minicpm3": LATENT,
    "mixtral": EXPERTS,
    "mpt": {"d_model": 32, "n_heads": 2, "n_layers": 2, "max_seq_len": 64, "expansion_ratio": 2},
    "nanochat": {},
    "nemotron": {},
    "olmoe": EXPERTS,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
    "persimmon": {},
    "phi": ALL_HEADS,
    "phi3": PHI3,
    "phimoe": EXPERTS,
    "qwen2_moe": EXPERTS,
    "qwen3_moe": EXPERTS,
    "qwen3_next": {**EXPERTS, **LINEAR_ATTENTION},
    "starcoder2": {},
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 2, "ffn_dim": 48},
}


def decoder_of(kind: str) -> PreTrainedModel:
    """A model with weights of a fixed seed, large enough that every layer matters."""
    config = AutoConfig.for_model(kind)
    known = {*config.to_dict(), *config.attribute_map}
    sizes = {name: value for name, value in {**SIZES, "head_dim": 16}.items() if name in known}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **{**sizes, **OF_THEIR_OWN[kind]})
    )
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_vector = parameter.dim() == 1
            parameter.copy_(1 + 0.1 * noise if is_vector else noise * parameter.shape[-1] ** -0.5)
    return model.eval()
