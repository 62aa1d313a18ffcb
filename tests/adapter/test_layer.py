"""The adapter on whole models: what it computes, what it trains, what it leaves behind."""

import pytest
import torch
import torch.nn.functional as F
from transformers.pytorch_utils import Conv1D

from helpers.tiny import FAMILIES, config_of, model_of, tokens, values_like
from tinylora.adapter import AdapterConfig, attach, load
from tinylora.adapter.factors import projections
from tinylora.adapter.svd import truncated_svd
from tinylora.errors import RequestError
from tinylora.policy import Policy

VARIANTS = {
    "paper": {},
    "without_s": {"scale": False},
    "random_basis": {"basis": "random"},
    "middle": {"subspace": "middle"},
    "lora_xs": {"projection": "identity", "u": 4, "num_groups": None},
    "structured": {"sharing": "structured", "num_groups": 3},
    "rank_5": {"rank": 5, "u": 7},
    "early": {"layers": "early", "num_groups": 2},
}


def logits(model, ids):
    return model(input_ids=ids).logits


def loss(model, ids):
    output = logits(model, ids)[:, :-1]
    return F.cross_entropy(output.flatten(0, 1), ids[:, 1:].flatten())


def slow_copy(model, adapter, settings):
    """The independent formula: W' = W + U S (sum_i v_i P_i) V^T in float64, written out."""
    copy = model_of(settings.pop("family"), torch.float64)
    config = adapter.config
    for group, names in enumerate(adapter.modules_by_group):
        for name in names:
            module = copy.get_submodule(name)
            is_transposed = isinstance(module, Conv1D)
            W = module.weight.data.T if is_transposed else module.weight.data
            factors = truncated_svd(W, config.rank, config.subspace)
            S = torch.diag(factors.S) if config.scale else torch.eye(config.rank).double()
            P = projections(name, config)
            R = torch.zeros(config.rank, config.rank, dtype=torch.float64)
            for i in range(config.u):
                R += adapter.v.detach()[group, i].double() * P[i]
            delta = factors.U @ S @ R @ factors.V.T
            module.weight.data += delta.T if is_transposed else delta
    return copy


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variant", ["paper", "without_s", "middle", "lora_xs", "structured"])
def test_logits_are_those_of_the_formula_written_out(family, variant):
    model, ids = model_of(family, torch.float64), tokens()
    adapter = attach(model, config_of(family, **VARIANTS[variant]))
    adapter.set_values(values_like(adapter.v))
    expected = logits(slow_copy(model, adapter, {"family": family}), ids)
    assert torch.allclose(logits(model, ids), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_zero_v_changes_no_bit_of_any_logit(family, dtype):
    model, ids = model_of(family, dtype), tokens()
    before = logits(model, ids)
    attach(model, config_of(family))
    assert torch.equal(logits(model, ids), before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_zero_v_changes_nothing_and_another_v_does_in_every_variant(variant):
    model, ids = model_of(), tokens()
    before = logits(model, ids)
    adapter = attach(model, config_of(**VARIANTS[variant]))
    assert torch.equal(logits(model, ids), before)
    adapter.set_values(values_like(adapter.v))
    assert not torch.allclose(logits(model, ids), before, atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_detach_leaves_no_trace(family):
    model, ids = model_of(family), tokens()
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    before, state = logits(model, ids), {k: t.clone() for k, t in model.state_dict().items()}
    modules = [(name, id(module)) for name, module in model.named_modules()]
    adapter = attach(model, config_of(family), register=True)
    adapter.set_values(values_like(adapter.v))
    logits(model, ids)
    adapter.detach()
    assert torch.equal(logits(model, ids), before)
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(model.state_dict()[key], state[key]) for key in state)
    assert [(name, id(module)) for name, module in model.named_modules()] == modules
    assert not any(module._forward_hooks for module in model.modules())
    assert [p for p in model.parameters() if not p.requires_grad] == [frozen]


def test_nothing_of_the_adapter_is_in_the_module_tree(tmp_path):
    model = model_of()
    keys = list(model.state_dict())
    attach(model, config_of())
    assert list(model.state_dict()) == keys
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert list(again.state_dict()) == keys


@pytest.mark.parametrize("family", FAMILIES)
def test_only_v_gets_a_gradient(family):
    model = model_of(family)
    adapter = attach(model, config_of(family))
    adapter.set_values(values_like(adapter.v))
    loss(model, tokens()).backward()
    assert adapter.parameters() == [adapter.v]
    assert adapter.v.grad.abs().min() > 0
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_of_v_is_that_of_finite_differences(family):
    model, ids, step = model_of(family, torch.float64), tokens(), 1e-5
    adapter = attach(model, config_of(family))
    start = values_like(adapter.v).double()
    adapter.set_values(start)
    loss(model, ids).backward()
    differences = torch.zeros_like(start)
    for place in range(start.numel()):
        nudge = torch.zeros(start.numel(), dtype=torch.float64)
        nudge[place] = step
        sides = []
        for sign in (1, -1):
            adapter.set_values(start + sign * nudge.view_as(start))
            sides.append(loss(model, ids).item())
        differences.view(-1)[place] = (sides[0] - sides[1]) / (2 * step)
    assert torch.allclose(adapter.v.grad, differences, rtol=1e-6, atol=1e-8)


def test_v_is_fp32_over_half_precision_and_float64_over_float64():
    dtypes = {torch.bfloat16: torch.float32, torch.float16: torch.float32}
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        adapter = attach(model_of(dtype=dtype), config_of())
        assert adapter.v.dtype == dtypes.get(dtype, dtype)


def test_an_update_far_below_the_step_of_bf16_weights_still_acts():
    """Merged into these weights it would round away: nine tenths and more of it."""
    model = model_of(dtype=torch.bfloat16)
    adapter = attach(model, config_of(num_groups=1))
    adapter.set_values(torch.full((1, 3), 1e-4))
    name = adapter.modules_by_group[0][4]
    module, x = model.get_submodule(name), torch.eye(32, dtype=torch.bfloat16)
    item = adapter._adapted[name]
    with torch.no_grad():
        seen = item.add_update(module, (x,), {}, torch.zeros(32, 48, dtype=torch.bfloat16))
    exact = adapter.delta_weight(name).T
    assert float((seen - exact).norm() / exact.norm()) < 0.01


def test_delta_weight_and_delta_rms_are_what_the_formula_says():
    model = model_of("gpt2")
    adapter = attach(model, config_of("gpt2"))
    adapter.set_values(values_like(adapter.v))
    names = [name for group in adapter.modules_by_group for name in group]
    deltas = [adapter.delta_weight(name) for name in names]
    assert adapter.delta_weight("transformer.h.0.attn.c_attn").shape == (96, 32)
    assert torch.equal(adapter.delta_weight(f"module._orig_mod.{names[0]}"), deltas[0])
    rms = torch.cat([delta.flatten() for delta in deltas]).square().mean().sqrt()
    assert adapter.delta_rms() == pytest.approx(float(rms), rel=1e-5)


def test_delta_rms_without_s_counts_no_s():
    adapter = attach(model_of(), config_of(scale=False, num_groups=1))
    adapter.set_values(values_like(adapter.v))
    names = adapter.modules_by_group[0]
    rms = torch.cat([adapter.delta_weight(n).flatten() for n in names]).square().mean().sqrt()
    assert adapter.delta_rms() == pytest.approx(float(rms), rel=1e-5)


def test_generate_with_a_kv_cache_answers_as_the_full_forward_pass():
    model, ids = model_of(), tokens(2, 5)
    adapter = attach(model, config_of())
    adapter.set_values(values_like(adapter.v, size=1.0))
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    made = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    expected = ids
    for _ in range(6):
        best = logits(model, expected)[:, -1].argmax(-1, keepdim=True)
        expected = torch.cat([expected, best], dim=1)
    assert torch.equal(made, expected)
    with adapter.disabled():
        assert not torch.equal(
            model.generate(ids, attention_mask=torch.ones_like(ids), **settings), made
        )


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing_gives_the_same_gradient(use_reentrant):
    model, ids = model_of().train(), tokens()
    adapter = attach(model, config_of())
    adapter.set_values(values_like(adapter.v))
    (expected,) = torch.autograd.grad(loss(model, ids), adapter.v)
    settings = {"use_reentrant": use_reentrant}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(settings)
    else:
        model.gradient_checkpointing_enable(settings)
    if use_reentrant:
        model.enable_input_require_grads()
    loss(model, ids).backward()
    assert torch.allclose(adapter.v.grad, expected, rtol=1e-5, atol=1e-7)


def test_two_forward_passes_before_one_backward_pass_add_up():
    model = model_of()
    adapter = attach(model, config_of())
    adapter.set_values(values_like(adapter.v))
    parts = [torch.autograd.grad(loss(model, tokens(seed=s)), adapter.v)[0] for s in (0, 1)]
    (loss(model, tokens(seed=0)) + loss(model, tokens(seed=1))).backward()
    assert torch.allclose(adapter.v.grad, parts[0] + parts[1], rtol=1e-4, atol=1e-6)


def test_autocast_computes_in_half_precision_and_never_rounds_v():
    model, ids = model_of(), tokens()
    adapter = attach(model, config_of(num_groups=1))
    values = 1 + torch.tensor([[2.0**-12, 2.0**-13, -(2.0**-12)]])  # bf16 has no such numbers
    adapter.set_values(values)
    seen = []
    item = next(iter(adapter._adapted.values()))
    original = item.mix
    item.mix = lambda v: seen.append(original(v)) or seen[-1]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        inside = logits(model, ids)
    assert torch.equal(seen[0].flatten(), values[0] @ item.P.flatten(1))
    assert inside.dtype == torch.bfloat16
    with torch.no_grad():
        assert torch.allclose(inside.float(), logits(model, ids), atol=0.1 * float(inside.std()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside_loss = loss(model, ids)
    inside_loss.backward()
    (expected,) = torch.autograd.grad(loss(model, ids), adapter.v)
    assert torch.allclose(adapter.v.grad, expected, rtol=0, atol=0.1 * float(expected.norm()))


def test_autocast_with_a_zero_v_changes_no_bit():
    model, ids = model_of(), tokens()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = logits(model, ids)
        attach(model, config_of())
        assert torch.equal(logits(model, ids), before)


def test_disabled_is_the_base_model_bit_for_bit():
    model, ids = model_of(), tokens()
    before = logits(model, ids)
    adapter = attach(model, config_of())
    adapter.set_values(values_like(adapter.v))
    with adapter.disabled():
        assert torch.equal(logits(model, ids), before)
    assert not torch.equal(logits(model, ids), before)


def test_state_goes_out_and_comes_back():
    adapter = attach(model_of(), config_of())
    adapter.set_values(values_like(adapter.v))
    state = adapter.state_dict()
    adapter.zero()
    assert not state["v"].eq(0).any()
    assert adapter.v.eq(0).all()
    adapter.load_state_dict(state)
    assert torch.equal(adapter.v, state["v"])


def test_the_default_is_a_number_for_each_of_thirteen_groups():
    adapter = attach(model_of())
    assert adapter.v.shape == (13, 1)
    assert adapter.config == AdapterConfig()
    assert [len(names) for names in adapter.modules_by_group] == [1] * 12 + [2]


def test_a_model_with_fewer_modules_than_the_default_has_groups_shares_nothing():
    adapter = attach(model_of(), AdapterConfig(targets=("q_proj", "o_proj")))
    assert adapter.v.shape == (4, 1)
    assert adapter.config.num_groups is None
    with pytest.raises(RequestError, match="num_groups = 13, but only 4 modules matched"):
        attach(model_of(), AdapterConfig(targets=("q_proj", "o_proj"), num_groups=13))


def test_exactly_n_tie_modules_share_and_the_last_group_has_the_rest(tmp_path):
    adapter = attach(model_of(), AdapterConfig(n_tie=4, u=2))
    assert [len(names) for names in adapter.modules_by_group] == [4, 4, 4, 2]
    adapter.set_values(values_like(adapter.v))
    adapter.save(tmp_path / "a.safetensors")
    for source in (tmp_path / "a.safetensors", adapter.to_text()):
        loaded = load(model_of(), source)
        assert (loaded.config.n_tie, loaded.config.num_groups) == (4, None)
        assert torch.equal(loaded.v, adapter.v)


def test_the_adapter_is_a_policy(tmp_path):
    """Reference, rollout, state and files, as the loop and the engines ask for them."""
    model, ids = model_of(), tokens()
    base = logits(model, ids)
    policy: Policy = attach(model, config_of())
    assert policy.adapter is policy
    policy.v.data.copy_(values_like(policy.v))
    trained = logits(model, ids)
    with policy.reference():
        assert torch.equal(logits(model, ids), base)
    with policy.rollout() as report:  # folded: plain fp32 weights
        assert report is None
        assert torch.allclose(logits(model, ids), trained, rtol=0, atol=1e-5)
        assert not torch.equal(logits(model, ids), trained)
    assert policy.metrics() == {
        "v_norm": float(policy.v.detach().norm()),
        "delta_rms": policy.delta_rms(),
    }
    policy.write_lora(tmp_path / "lora")
    assert {file.name for file in (tmp_path / "lora").iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
    }
    assert policy.save(tmp_path, "bf16") == (tmp_path / "adapter.safetensors").stat().st_size


def test_rollouts_over_half_precision_run_the_hooks():
    adapter = attach(model_of(dtype=torch.bfloat16), config_of())
    adapter.set_values(values_like(adapter.v))
    expected = logits(adapter.model, tokens())
    with adapter.rollout():
        assert torch.equal(logits(adapter.model, tokens()), expected)
