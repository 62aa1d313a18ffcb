"""Loading a base model, and what is said where there is none."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast

from tinylora.errors import RequestError
from tinylora.models import (
    DTYPES,
    check_context,
    from_loaded,
    load_model,
    load_skeleton,
    load_tokenizer,
    quantization_of,
)
from tinylora.pocket import model_folder
from tinylora.prompts import encode_problem
from tinylora.tasks import Problem


def test_a_folder_gives_model_and_tokenizer_in_fp32(tiny_folder: Path) -> None:
    base = load_model(str(tiny_folder), device="cpu")
    assert base.model.dtype == torch.float32
    assert not base.model.training
    assert encode_problem(base.tokenizer, Problem("what is red ?", "")) == [8, 7, 5, 9]


def test_bf16_is_given_where_it_is_asked_for(tiny_folder: Path) -> None:
    assert load_model(str(tiny_folder), dtype="bf16", device="cpu").model.dtype == torch.bfloat16


def test_every_end_token_is_found(tiny_folder: Path, tmp_path: Path) -> None:
    """Chat models name one end in the tokenizer and others in the generation settings."""
    base = load_model(str(tiny_folder), device="cpu")
    assert base.eos_token_ids == (0,)
    base.model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4]}))
    assert load_model(str(tmp_path), device="cpu").eos_token_ids == (3, 4, 0)


def test_a_chat_template_opens_the_models_turn(tiny_folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_folder)
    tokenizer.chat_template = (
        "{% for m in messages %}one {{ m['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}two{% endif %}"
    )
    assert encode_problem(tokenizer, Problem("red", "")) == [2, 5, 3]


def test_a_skeleton_has_shapes_and_no_weights(tiny_folder: Path) -> None:
    model = load_skeleton(str(tiny_folder))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert model.get_submodule("model.layers.1.mlp.down_proj").weight.shape == (16, 24)


def test_a_loaded_model_finds_its_own_tokenizer(tiny_folder: Path) -> None:
    base = from_loaded(LlamaForCausalLM.from_pretrained(tiny_folder))
    assert encode_problem(base.tokenizer, Problem("blue", "")) == [6]


def test_a_loaded_model_without_a_name_needs_its_tokenizer(tiny_folder: Path) -> None:
    model = LlamaForCausalLM(LlamaForCausalLM.from_pretrained(tiny_folder).config)
    model.name_or_path = ""
    with pytest.raises(RequestError, match=r"No tokenizer .* LlamaForCausalLM .*Pass tokenizer=\."):
        from_loaded(model)
    base = from_loaded(model, PreTrainedTokenizerFast.from_pretrained(tiny_folder))
    with pytest.raises(
        RequestError, match=r"in-memory LlamaForCausalLM without a name.*pass --model"
    ):
        load_model(base.name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("./nowhere", r"The model folder ./nowhere does not exist. Use .pocket., .smollm2."),
        ("/no/such/place", "The model folder /no/such/place does not exist"),
        (
            "nobody/nothing",
            "nobody/nothing is not a folder, and the hub did not provide a model of that",
        ),
    ],
)
def test_a_missing_model_is_a_wrong_request(name: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence) as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_a_wrong_request(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"is a folder without a config.json"):
        load_model(str(tmp_path))


def test_a_damaged_model_folder_is_a_wrong_request(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RequestError, match=r"The model in .* cannot be loaded"):
        load_model(str(tmp_path))


def test_an_unusable_device_is_a_wrong_request(tiny_folder: Path) -> None:
    with pytest.raises(RequestError, match='device = "tpu-9" cannot be used here'):
        load_model(str(tiny_folder), device="tpu-9")


def test_a_budget_longer_than_the_context_is_refused(tiny_folder: Path) -> None:
    model = load_skeleton(str(tiny_folder))  # its context is 64
    check_context(model, [[1] * 4], 60)
    with pytest.raises(
        RequestError, match=r"max_new_tokens = 61 after a prompt of 4 tokens.*Use max_new_tokens <="
    ):
        check_context(model, [[1] * 4, [1]], 61)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_nf4_has_double_quantisation_and_computes_in_the_dtype(dtype: str) -> None:
    base = load_model("pocket", dtype, "cpu", "nf4")
    layer = base.model.get_submodule("model.layers.0.mlp.down_proj")
    state = layer.weight.quant_state
    assert (state.quant_type, state.nested, state.blocksize) == ("nf4", True, 64)
    assert layer.compute_dtype == base.model.dtype == DTYPES[dtype]
    assert layer.weight.numel() == 128 * 384 // 2  # two codes a byte
    assert type(base.model.lm_head) is torch.nn.Linear
    assert quantization_of(base.model) == "nf4"


def test_int8_holds_one_byte_a_weight() -> None:
    base = load_model("pocket", "fp32", "cpu", "int8")
    layer = base.model.get_submodule("model.layers.0.mlp.down_proj")
    assert (layer.weight.dtype, layer.weight.shape) == (torch.int8, (128, 384))
    assert type(base.model.lm_head) is torch.nn.Linear
    assert quantization_of(base.model) == "int8"


@pytest.mark.parametrize(("quantize", "least", "most"), [("nf4", 0.01, 0.3), ("int8", 0, 0.1)])
def test_a_quantised_model_answers_nearly_as_the_plain_one(
    quantize: str, least: float, most: float
) -> None:
    problem = Problem("Tom has 5 apples. Tom buys 3 more. How many apples now?", "8")
    prompt = torch.tensor([encode_problem(load_tokenizer("pocket"), problem)])
    with torch.no_grad():
        plain, quantised = (
            load_model("pocket", "fp32", "cpu", kind).model(prompt).logits.softmax(-1)
            for kind in ("none", quantize)
        )
    distance = float((plain - quantised).abs().sum(-1).mean()) / 2  # total variation
    assert least < distance < most


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_a_model_stored_quantised_is_used_as_it_is(quantize: str, tmp_path: Path) -> None:
    base = load_model("pocket", "fp32", "cpu", quantize)
    base.model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        RequestError, match=rf"quantize = {quantize}, but .* already stored quantised, by bitsand"
    ):
        load_model(str(tmp_path), "fp32", "cpu", quantize)
    again = load_model(str(tmp_path), "fp32", "cpu")
    assert quantization_of(again.model) == "none"  # its name alone brings the codes back
    ids = torch.arange(3, 13)[None]
    with torch.no_grad():
        assert torch.equal(again.model(ids).logits, base.model(ids).logits)


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinylora.models.find_spec", lambda name: None)
    with pytest.raises(
        RequestError,
        match=r'nf4 needs bitsandbytes.*pip install "bitsandbytes',
    ):
        load_model("pocket", quantize="nf4")
    load_model("pocket")


def test_no_cpu_packs_the_codes_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """With AVX512-BF16 bitsandbytes would, at the first forward pass, and lose the gradient."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model = load_model("pocket", "fp32", "cpu", "nf4").model
    layer = model.get_submodule("model.layers.0.mlp.down_proj")
    codes = layer.weight.data.clone()
    with torch.no_grad():
        model(torch.arange(3, 13)[None])
    assert torch.equal(layer.weight.data, codes)


def changed(tiny_folder: Path, folder: Path, **tensors: torch.Tensor | None) -> str:
    """The tiny model with other tensors; None: without that one."""
    shutil.copytree(tiny_folder, folder / "changed")
    path = folder / "changed" / "model.safetensors"
    held = {**load_file(path), **{name.replace("__", "."): t for name, t in tensors.items()}}
    save_file({name: t for name, t in held.items() if t is not None}, path, {"format": "pt"})
    return str(folder / "changed")


def test_a_checkpoint_that_lacks_a_tensor_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    """Transformers would fill it with random numbers, others at every load."""
    missing = changed(tiny_folder, tmp_path, model__layers__1__mlp__up_proj__weight=None)
    with pytest.raises(RequestError, match=r"lack a tensor for LlamaForC.*: model.layers.1.mlp"):
        load_model(missing, device="cpu")


def test_a_checkpoint_with_tensors_of_another_model_is_refused(
    tiny_folder: Path, tmp_path: Path
) -> None:
    extra = changed(tiny_folder, tmp_path, score__weight=torch.zeros(2, 16))
    with pytest.raises(RequestError, match=r"have an additional tensor .*: score.weight"):
        load_model(extra, device="cpu")


def test_weights_of_another_shape_or_cut_off_are_one_sentence(
    tiny_folder: Path, tmp_path: Path
) -> None:
    other = changed(tiny_folder, tmp_path, model__norm__weight=torch.zeros(8))
    with pytest.raises(RequestError, match=r"changed cannot be loaded"):
        load_model(other, device="cpu")
    weights = tmp_path / "changed" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(RequestError, match=r"cannot be loaded: a file is damaged, cut off, or"):
        load_model(other, device="cpu")


def test_an_offloaded_model_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
    model = AutoModelForCausalLM.from_pretrained(
        tiny_folder,
        device_map={**places, "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"},
        offload_folder=tmp_path,
    )
    with pytest.raises(RequestError, match=r"not in the memory of its device .*Load it onto one"):
        from_loaded(model)


def test_the_packaged_model_given_as_an_object_is_pocket() -> None:
    assert from_loaded(load_model("pocket", device="cpu").model).name == "pocket"
    named = AutoModelForCausalLM.from_pretrained(model_folder())
    assert from_loaded(named).name == "pocket"


def test_the_attention_is_what_was_asked_for(tiny_folder: Path) -> None:
    name = str(tiny_folder)
    found = [load_model(name, attention=kind).model.config._attn_implementation
             for kind in ("eager", "sdpa", "auto")]  # fmt: skip
    assert found == ["eager", "sdpa", "sdpa"]
    with pytest.raises(RequestError, match=r"(?i)cannot be loaded \(.*flash"):
        load_model(name, attention="flash_attention_2")
