"""The fingerprint: another base is refused, with what differs and why; the same one never is."""

import copy

import pytest
import torch
from test_layer import logits
from torch import nn
from transformers import AutoModelForCausalLM

from helpers.tiny import FAMILIES, config_of, model_of, tokens, values_like
from tinylora.adapter import attach, fingerprint, load
from tinylora.adapter.fingerprint import compare, take
from tinylora.errors import RequestError
from tinylora.models import load_skeleton
from tinylora.pocket import model_folder

PARTS = {1: "norms or biases", 2: "linear layers"}


def saved(path, model, **settings):
    """An adapter's file on this model, which is left bare."""
    adapter = attach(model, config_of(**settings))
    adapter.set_values(values_like(adapter.v))
    adapter.save(path)
    adapter.detach()
    return path


def refusal(model, path):
    with pytest.raises(RequestError) as refused:
        load(model, path)
    attach(model, config_of()).detach()  # it was left bare
    return str(refused.value)


def changed(base, change):
    model = copy.deepcopy(base)
    with torch.no_grad():
        change(model)
    return model


def test_the_fingerprint_of_the_packaged_model_is_the_same_for_ever():
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        model = AutoModelForCausalLM.from_pretrained(model_folder(), dtype=dtype)
        assert take(model) == "plain:9f1f920c438975b1012cfd3d438975ff1377"


@pytest.mark.parametrize("family", FAMILIES)
def test_one_element_of_any_tensor_makes_another_base(family):
    """The tensors here are small enough to be in the sample as a whole."""
    model = model_of(family)
    before = take(model)
    for name, parameter in model.named_parameters():
        flat = parameter.data.view(-1)
        kept = flat[-1].item()
        flat[-1] = kept * (1 + 2**-22)
        is_embedding = name.endswith(("embed_tokens.weight", "wte.weight", "wpe.weight"))
        part = "embeddings" if is_embedding else PARTS[parameter.dim()]
        assert compare(before, take(model)).what == f"the {part} differ", name
        flat[-1] = kept
    assert take(model) == before


def test_a_buffer_that_is_saved_counts_and_one_that_is_not_does_not():
    model = nn.Sequential(nn.Linear(3, 3))
    model.register_buffer("running_mean", torch.zeros(3))
    model.register_buffer("scratch", torch.zeros(3), persistent=False)
    before = take(model)
    model.scratch += 1
    assert take(model) == before
    model.running_mean += 1
    assert compare(before, take(model)).what == "the norms or biases differ"


def test_the_sample_of_a_large_tensor_is_in_every_column_and_costs_no_copy():
    large = torch.ones(1).expand(2**20, 2**20)  # a copy would be four terabytes
    assert 4000 < len(fingerprint._strided(large)) <= fingerprint.NUM_SAMPLED
    columns = torch.arange(256.0).expand(4096, 256)
    assert len(fingerprint._strided(columns).unique()) == 256
    rows = torch.arange(4096.0)[:, None].expand(4096, 256)
    assert len(fingerprint._strided(rows).unique()) > 4000


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_exact_upcast_is_the_same_base(tmp_path, dtype):
    path = saved(tmp_path / "a.safetensors", model_of(dtype=dtype))
    for wider in (torch.float32, torch.float64):
        model = model_of(dtype=dtype).to(wider)
        assert torch.equal(load(model, path).v, values_like(load(model_of(dtype=dtype), path).v))


@pytest.mark.parametrize(
    ("there", "here", "cause", "cure"),
    [
        ("float32", "bfloat16", "rounded to bf16", "dtype=torch.float32 (--dtype fp32)"),
        ("float32", "float16", "rounded to fp16", "dtype=torch.float32 (--dtype fp32)"),
        ("bfloat16", "float32", "saw the same weights rounded to bf16", "bfloat16 (--dtype bf16)"),
        ("float16", "float32", "saw the same weights rounded to fp16", "dtype=torch.float16"),
        ("float64", "float32", "in another precision, or very lightly", "the base as it was"),
    ],
)
def test_rounded_weights_are_another_base_and_are_recognised(tmp_path, there, here, cause, cure):
    def base(name):
        generator = torch.Generator().manual_seed(0)
        model = model_of(dtype=torch.float64)
        for parameter in model.parameters():  # bits that fp32 does not hold
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data += 1e-9 * noise
        return model.to(torch.float64 if name == "float64" else torch.float32).to(
            getattr(torch, name)
        )

    path = saved(tmp_path / "a.safetensors", base(there))
    said = refusal(base(here), path)
    assert "the embeddings, linear layers and norms or biases differ" in said
    assert cause in said
    assert cure in said


def test_bf16_weights_that_were_rounded_to_fp16_are_recognised(tmp_path):
    model = model_of(dtype=torch.bfloat16)
    model.model.layers[0].mlp.up_proj.weight.data *= 1e-6  # below what fp16 holds
    path = saved(tmp_path / "a.safetensors", model)
    said = refusal(model.half(), path)
    assert "the linear layers differ" in said
    assert "rounded to fp16. Load the base with dtype=torch.bfloat16 (--dtype bf16)" in said


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_light_fine_tune_is_another_base(tmp_path, dtype):
    def fine_tune(model):
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            if "_proj.weight" in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter += 1e-4 * parameter.std() * noise.to(dtype)

    base = model_of(dtype=dtype)
    said = refusal(changed(base, fine_tune), saved(tmp_path / "a.safetensors", base))
    assert "the linear layers differ. Likely a fine-tuned version" in said


@pytest.mark.parametrize(
    ("change", "what", "cause"),
    [
        (lambda m: m.model.embed_tokens.weight[7].mul_(1.5), "embeddings", "tokens were added"),
        (lambda m: m.resize_token_embeddings(48), "embeddings", "tokens were added"),
        (lambda m: m.model.norm.weight[3].add_(1e-6), "norms or biases", "only they were fine"),
        (lambda m: m.model.layers.__delitem__(1), "linear layers and norms or", "another model"),
    ],
)
def test_a_changed_base_is_refused_with_what_differs_and_why(tmp_path, change, what, cause):
    base = model_of()
    said = refusal(changed(base, change), saved(tmp_path / "a.safetensors", base))
    assert f"not trained on this model's weights: the {what}" in said
    assert cause in said


def test_the_names_of_both_bases_are_said(tmp_path):
    base, other = model_of(), model_of("llama")
    base.config._name_or_path, other.config._name_or_path = "one/base", "an/other"
    said = refusal(other, saved(tmp_path / "a.safetensors", base))
    assert "(trained on one/base, this model is an/other)" in said


def test_the_revisions_of_both_bases_are_said(tmp_path):
    base = model_of()
    base.config._name_or_path, base.config._commit_hash = "one/base", "a1" * 20
    path = saved(tmp_path / "a.safetensors", base)
    other = changed(base, lambda m: m.lm_head.weight[0].add_(1))
    other.config._commit_hash = "b2" * 20
    names = f"(trained on one/base at {'a1' * 20}, this model is one/base at {'b2' * 20})"
    assert names in refusal(other, path)


def test_forced_it_loads_with_a_warning_that_says_the_risk(tmp_path):
    base = model_of()
    path = saved(tmp_path / "a.safetensors", base)
    other = changed(base, lambda m: m.model.norm.weight[3].add_(1e-6))
    assert "force=True (--force)" in refusal(other, path)
    with pytest.warns(UserWarning, match="loaded anyway; it then acts on other"):
        adapter = load(other, path, force=True)
    assert torch.equal(adapter.v, values_like(adapter.v))
    adapter.save(tmp_path / "b.safetensors")  # now it is an adapter of this base
    adapter.detach()
    load(other, tmp_path / "b.safetensors")


def test_an_adapter_of_the_base_itself_loads_without_a_warning_when_forced(tmp_path):
    path = saved(tmp_path / "a.safetensors", model_of())
    load(model_of(), path, force=True)


def test_wrappers_ties_order_and_a_registered_v_do_not_matter():
    model = model_of()
    before = take(model)
    assert take(torch.compile(model, backend="eager")) == before
    assert take(nn.ModuleDict({"module": model})) == before
    untied = model_of()
    untied.lm_head.weight = nn.Parameter(untied.lm_head.weight.detach().clone())
    assert take(untied) == before
    untied.lm_head.weight.data[0, 0] += 1
    assert compare(before, take(untied)).what == "the embeddings differ"
    shuffled = model_of()
    for module in shuffled.modules():
        module._modules = dict(reversed(module._modules.items()))
        module._parameters = dict(reversed(module._parameters.items()))
    assert take(shuffled) == before
    adapter = attach(model, config_of(), register=True)
    adapter.set_values(values_like(adapter.v))
    assert take(model) == adapter.fingerprint == before
    assert take(copy.deepcopy(model)) == before


def test_it_is_of_the_base_as_it_was_attached_to(tmp_path):
    """Whatever is folded in or cast later."""
    model = model_of()
    adapter = attach(model, config_of())
    adapter.set_values(values_like(adapter.v))
    expected = logits(model, tokens())
    with adapter.folded():
        adapter.save(tmp_path / "a.safetensors")
    again = model_of()
    load(again, tmp_path / "a.safetensors")
    assert torch.equal(logits(again, tokens()), expected)


def test_what_has_no_weights_has_no_fingerprint(tiny_folder):
    assert take(load_skeleton(str(tiny_folder))) == ""
    assert compare("", "plain:00") is compare("plain:00", "") is None


def test_bases_of_two_kinds_differ():
    mismatch = compare("nf4-double:00", take(model_of()))
    assert mismatch.what == "its base was quantised (nf4-double), and this one is not quantised"
    assert "Load the base as it was (--quantize nf4" in mismatch.cure
    assert compare("gptq-QuantLinear:00", take(model_of())).cure == "Load the base as it was."
