"""Tiny random decoders of many architectures, made from their configurations."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

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
    "lfm2": {"layer_types": ["conv", "full_attention"]},
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
MAMBA = {
    "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}  # fmt: skip
STATES = {"state_size": 8, "time_step_rank": 4, "expand": 2, "intermediate_size": 64}
WINDOW = {"sliding_window": 8}
ALTERNATING = {**WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
ROTARY = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
IMAGES = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip
QWEN35 = {**LINEAR_ATTENTION}
MORE: dict[str, tuple[str, dict[str, object]]] = {  # by a name of ours: model_type, and the same
    "llama": ("llama", {"tie_word_embeddings": False}),
    "llama-tied": ("llama", {}),
    "llama31-rope": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0,
                "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "qwen3_5": ("qwen3_5", {}),
    "qwen3_5_text": ("qwen3_5_text", QWEN35),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral-window": ("mistral", WINDOW),
    "ministral3": ("ministral3", {}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {**ALTERNATING, "query_pre_attn_scalar": 16}),
    "gemma3": ("gemma3", {}),
    "gemma3n_text": (
        "gemma3n_text",
        {
            **ALTERNATING, "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_hidden_layers": 4, "intermediate_size": 48, "num_kv_shared_layers": 2,
            "laurel_rank": 8, "vocab_size_per_layer_input": 40, "hidden_size_per_layer_input": 8,
            "activation_sparsity_pattern": [0.0] * 4,
        },
    ),
    "gemma4_text": (
        "gemma4_text",
        {**ALTERNATING, "vocab_size_per_layer_input": 40, "hidden_size_per_layer_input": 8},
    ),
    "bamba": ("bamba", {**MAMBA, "attn_layer_indices": [1]}),
    "bitnet": ("bitnet", {}),
    "cohere": ("cohere", {}),
    "cohere2": ("cohere2", ALTERNATING),
    "diffllama": ("diffllama", ALL_HEADS),
    "ernie4_5": ("ernie4_5", {}),
    "exaone4": ("exaone4", ALTERNATING),
    "falcon-7b-like": ("falcon", {"new_decoder_architecture": False, "multi_query": True}),
    "falcon-rw-alibi": (
        "falcon",
        {"new_decoder_architecture": False, "multi_query": False, "alibi": True},
    ),
    "falcon_h1": (
        "falcon_h1", {**MAMBA, "mamba_d_ssm": 64, "lm_head_multiplier": 0.5, "head_dim": 16},
    ),
    "falcon_mamba": ("falcon_mamba", STATES),
    "glm4": ("glm4", {}),
    "granite": ("granite", {"logits_scaling": 4.0}),
    "granitemoehybrid": (
        "granitemoehybrid",
        {
            **EXPERTS, **MAMBA, "layer_types": ["linear_attention", "full_attention"],
            "shared_intermediate_size": 24, "logits_scaling": 4.0,
        },
    ),
    "helium": ("helium", {}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {}),
    "internlm3": ("internlm3", {}),
    "jamba": (
        "jamba",
        {
            "num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8,
            "mamba_dt_rank": 4, "use_mamba_kernels": False,
        },
    ),
    "llama4_text": (
        "llama4_text",
        {
            **EXPERTS, "num_experts_per_tok": 1, "intermediate_size_mlp": 48,
            "attention_chunk_size": 8, "num_hidden_layers": 4, "moe_layers": [1, 3],
            "no_rope_layers": [1, 1, 1, 0], "use_qk_norm": True,
        },
    ),
    "mamba": ("mamba", STATES),
    "mamba2": (
        "mamba2",
        {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    ),
    "nemotron_h": (
        "nemotron_h",
        {
            **EXPERTS, "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
            "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 1,
            "chunk_size": 8, "moe_shared_expert_intermediate_size": 24, "moe_latent_size": None,
        },
    ),
    "olmo": ("olmo", {}),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", ALTERNATING),
    "opt-350m-like": (
        "opt", {"ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": True},
    ),
    "recurrent_gemma": (
        "recurrent_gemma",
        {
            "num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 8,
            "num_key_value_heads": 1,
        },
    ),
    "rwkv": ("rwkv", {"attention_hidden_size": 32, "context_length": 64}),
    "seed_oss": ("seed_oss", {}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0]}),
    "stablelm": ("stablelm", {}),
    "zamba2": (
        "zamba2",
        {
            "num_hidden_layers": 4, "mamba_d_state": 8, "n_mamba_heads": 4, "chunk_size": 8,
            "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
            "adapter_rank": 4, "num_key_value_heads": 2,
        },
    ),
}  # fmt: skip
NESTED: dict[str, dict[str, object]] = {  # of several modalities: what their text parts add
    "gemma3": {**ALTERNATING, "query_pre_attn_scalar": 16},
    "qwen3_5": QWEN35,
}
VISION: dict[str, dict[str, object]] = {
    "gemma3": IMAGES,
    "qwen3_5": {
        "depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2,
        "out_hidden_size": 32, "num_position_embeddings": 16,
    },
}  # fmt: skip
ALL = {**{kind: (kind, own) for kind, own in OF_THEIR_OWN.items() if kind != "falcon"}, **MORE}


def decoder_of(name: str, **settings: object) -> PreTrainedModel:
    """A model with weights of a fixed seed, large enough that every layer matters.

    Args:
        settings: of the configuration, or of its text part, in place of the tiny ones.
    """
    kind, own = {**ALL, "falcon": ALL["falcon-7b-like"]}[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(kind, {**own, **settings}))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_vector = parameter.dim() == 1
            parameter.copy_(1 + 0.1 * noise if is_vector else noise * parameter.shape[-1] ** -0.5)
    return model.eval()


def config_of(kind: str, own: dict[str, object]) -> PreTrainedConfig:
    """The configuration of a tiny model; of several modalities, each part is tiny."""
    config = AutoConfig.for_model(kind)
    if kind not in NESTED:
        return AutoConfig.for_model(kind, **{**_sizes(config), **own})
    text = {**_sizes(config.text_config), **NESTED[kind], **own}
    parts = {"text_config": text, "vision_config": VISION[kind]}
    return AutoConfig.for_model(kind, **parts, mm_tokens_per_image=4)


def _sizes(config: PreTrainedConfig) -> dict[str, object]:
    known = {*config.to_dict(), *config.attribute_map}
    return {name: value for name, value in {**SIZES, "head_dim": 16}.items() if name in known}
