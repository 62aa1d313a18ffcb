"""PEFT's own TinyLoRA: what we write it answers with, and what it writes we answer with."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from helpers.exports import adapter_of, logits, served
from helpers.tiny import FAMILIES, GPT2_TARGETS, model_of, tokens
from tinylora.adapter import load
from tinylora.errors import RequestError
from tinylora.export import from_peft_tinylora, to_peft_tinylora
from tinylora.export.peft_tinylora import PREFIX, peft_groups
from tinylora.settings import SEVEN_MAPS

pytestmark = pytest.mark.filterwarnings(  # peft 0.21's
    "ignore:`is_gradient_checkpointing`:FutureWarning",
    "ignore:Specified to not:UserWarning",
)


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_peft_gives_our_logits(family: str, tmp_path: Path) -> None:
    adapter, ids = adapter_of(family), tokens()
    to_peft_tinylora(adapter, tmp_path / "out")
    ours, theirs = logits(adapter.model, ids), logits(served(family, tmp_path / "out"), ids)
    assert equal(ours, theirs)
    assert not torch.allclose(ours, logits(model_of(family), ids), atol=0.1)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_groups": 1},
        {"num_groups": None},
        {"num_groups": 7},
        {"num_groups": 3, "sharing": "structured"},
        {"num_groups": None, "layers": "1-1"},
        {"scale": False},
        {"basis": "random"},
        {"num_groups": 2, "rank": 3},
    ],
)
def test_every_kind_of_sharing_gives_its_logits(settings: dict[str, Any], tmp_path: Path) -> None:
    adapter, ids = adapter_of(**settings), tokens()
    to_peft_tinylora(adapter, tmp_path / "out")
    assert equal(logits(adapter.model, ids), logits(served("qwen2", tmp_path / "out"), ids))


@pytest.mark.parametrize(("num_groups", "num_numbers"), [(1, 3), (7, 21), (None, 42), (4, 33)])
def test_what_peft_can_share_is_shared(num_groups, num_numbers: int, tmp_path: Path) -> None:
    """14 modules, u = 3. PEFT has groups of one size, and a last one of all the rest: our runs of

    3, 4, 3 and 4 modules become ten groups of one module, and the last of four.
    """
    adapter = adapter_of(num_groups=num_groups)
    exported = to_peft_tinylora(adapter, tmp_path / "out")
    held = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert sum(t.numel() for key, t in held.items() if ".tinylora_v." in key) == num_numbers
    is_more = num_numbers > adapter.num_trainable
    assert any(f"are {num_numbers} here" in note for note in exported.notes) == is_more


@pytest.mark.parametrize("num_modules", [1, 2, 14, 28, 196])
def test_groups_are_those_of_peft(num_modules: int) -> None:
    """FIELD: 196 modules in 100 groups are 99 groups of one and one of 97."""
    assert peft_groups(num_modules, 0.0) == list(range(num_modules))
    assert peft_groups(num_modules, 1.0) == [0] * num_modules
    if num_modules == 196:
        groups = peft_groups(196, 1 - 100 / 196)
        assert groups == [*range(99), *[99] * 97]


def checkpoint(family: str, folder: Path, size: float = 0.3, **settings: Any) -> Any:
    """A trained TinyLoRA of PEFT's: random values in v, saved."""
    targets = list(GPT2_TARGETS if family == "gpt2" else SEVEN_MAPS)
    config = peft.TinyLoraConfig(
        **{
            "r": 2,
            "u": 3,
            "target_modules": targets,
            "fan_in_fan_out": family == "gpt2",
            **settings,
        }
    )
    model = peft.get_peft_model(model_of(family), config).eval()
    generator = torch.Generator().manual_seed(2)
    for v in model.base_model.tinylora_v["default"].values():
        v.data.copy_(size * torch.randn(v.shape, generator=generator))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("save_projection", [True, False])
def test_a_checkpoint_of_peft_gives_its_logits(
    family: str, save_projection: bool, tmp_path: Path
) -> None:
    ids = tokens()
    theirs = checkpoint(family, tmp_path / "peft", save_projection=save_projection)
    imported = from_peft_tinylora(model := model_of(family), tmp_path / "peft")
    assert not torch.allclose(logits(theirs, ids), logits(model_of(family), ids), atol=0.1)
    # PEFT's factors are an fp32 SVD, whose last bits are those of the processor.
    assert torch.allclose(logits(model, ids), logits(theirs, ids), rtol=0, atol=3e-5)
    assert imported.residual < 1e-4
    assert imported.num_before == 3 * len(imported.adapter.maps)


@pytest.mark.parametrize(
    ("settings", "targets", "layers", "num_numbers"),
    [
        ({"weight_tying": 1.0}, SEVEN_MAPS, "all", 14 * 4),
        ({"weight_tying": 0.5, "r": 1}, SEVEN_MAPS, "all", 14),
        ({"target_modules": ["v_proj", "q_proj"]}, ("q_proj", "v_proj"), "all", 4 * 4),
        ({"layers_to_transform": [1]}, SEVEN_MAPS, "1-1", 7 * 4),
        (
            {"target_modules": ["layers.0.mlp.up_proj", "layers.1.self_attn.q_proj"]},
            ("model.layers.0.mlp.up_proj", "model.layers.1.self_attn.q_proj"),
            "all",
            2 * 4,
        ),
    ],
)
def test_an_imported_adapter_is_a_file_like_any_other(
    settings: dict[str, Any], targets: tuple[str, ...], layers: str, num_numbers: int,
    tmp_path: Path,
) -> None:  # fmt: skip
    ids = tokens()
    theirs = checkpoint("qwen2", tmp_path / "peft", **settings)
    adapter = from_peft_tinylora(model_of(), tmp_path / "peft").adapter
    assert (adapter.config.targets, adapter.config.layers) == (targets, layers)
    assert adapter.num_trainable == num_numbers
    adapter.save(tmp_path / "adapter.safetensors")
    load(again := model_of(), tmp_path / "adapter.safetensors")
    assert equal(logits(again, ids), logits(theirs, ids))


def test_a_checkpoint_on_half_precision_is_off_by_its_own_rounding(tmp_path: Path) -> None:
    """PEFT rounded A and B to bf16; over the same weights in fp32 the rest of them is expressed."""
    config = peft.TinyLoraConfig(r=2, u=3, target_modules=["q_proj", "v_proj"])
    theirs = peft.get_peft_model(model_of(dtype=torch.bfloat16), config)
    for v in theirs.base_model.tinylora_v["default"].values():
        v.data.fill_(0.3)
    theirs.save_pretrained(tmp_path)
    imported = from_peft_tinylora(model_of(dtype=torch.bfloat16).float(), tmp_path)
    assert 1e-4 < imported.residual < 1e-2


def test_there_and_back_is_the_same_model(tmp_path: Path) -> None:
    adapter, ids = adapter_of(), tokens()
    to_peft_tinylora(adapter, tmp_path / "out")
    from_peft_tinylora(again := model_of(), tmp_path / "out")
    assert equal(logits(adapter.model, ids), logits(again, ids))


def refused(sentence: str, folder: Path, model: Any = None) -> None:
    """Importing is refused with this sentence, and the model is left without an adapter."""
    model = model or model_of()
    with pytest.raises(RequestError, match=sentence):
        from_peft_tinylora(model, folder)
    assert not any(module._forward_hooks for module in model.modules())


def rewrite(folder: Path, **settings: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_another_base_model_is_refused(tmp_path: Path) -> None:
    checkpoint("qwen2", tmp_path)
    other = model_of()
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight.mul_(
            1 + 0.3 * torch.randn(48, 32, generator=torch.Generator().manual_seed(0))
        )
    sentence = r"% of the checkpoint's update of model.layers.1.mlp.up_proj is outside.*--model"
    refused(sentence, tmp_path, other)


def test_a_model_without_its_modules_is_refused(tmp_path: Path) -> None:
    checkpoint("qwen2", tmp_path)
    refused("adapts model.layers.0.* GPT2LMHeadModel does not have", tmp_path, model_of("gpt2"))


def test_a_model_of_another_size_is_refused(tmp_path: Path) -> None:
    checkpoint("qwen2", tmp_path)
    sizes = model_of().config.to_dict() | {"hidden_size": 16, "intermediate_size": 24}
    sentence = r"q_proj as a \(32, 32\) matrix, but this model's is \(16, 16\).*with --model"
    refused(sentence, tmp_path, Qwen2ForCausalLM(Qwen2Config(**sizes)))


def test_directions_that_the_base_does_not_define_are_refused(tmp_path: Path) -> None:
    """All singular values of one weight are equal: PEFT took two directions as LAPACK gave them."""
    checkpoint("qwen2", tmp_path)
    other = model_of()
    with torch.no_grad():
        other.model.layers[0].self_attn.q_proj.weight.copy_(torch.eye(32))
    refused("changes model.layers.0.self_attn.q_proj, but its weights", tmp_path, other)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"peft_type": "LORA"}, "of type LORA, but only TINYLORA"),
        ({"bias": "all"}, "bias = all: the checkpoint has trained weights besides"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save = \['lm_head'\]: the checkpoint"),
        ({"r": 3}, "has rank 3, but model.layers.0.self_attn.q_proj has rank 2"),
    ],
)
def test_what_has_no_place_is_refused(
    settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    checkpoint("qwen2", tmp_path)
    rewrite(tmp_path, **settings)
    refused(sentence, tmp_path)


def test_an_embedding_is_refused(tmp_path: Path) -> None:
    checkpoint("gpt2", tmp_path, target_modules=["wte"])
    refused("transformer.wte, an embedding", tmp_path, model_of("gpt2"))


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    refused("does not contain adapter_config.json", tmp_path)
    checkpoint("qwen2", tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    whole = load_file(path)
    for key in ("base_model.tinylora_v.3", f"{PREFIX}model.layers.1.mlp.up_proj.tinylora_B"):
        save_file({name: tensor for name, tensor in whole.items() if name != key}, path)
        refused(f"lacks {key}", tmp_path)
    path.write_bytes(b"half a file")
    refused("cannot be read as safetensors", tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    refused("is not a configuration of PEFT's TinyLoRA", tmp_path)
