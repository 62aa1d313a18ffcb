"""folded and per_row."""

import pytest
import torch
from test_layer import logits, loss
from torch import nn

from helpers.tiny import FAMILIES, config_of, model_of, tokens, values_like
from tinylora.adapter import attach
from tinylora.errors import RequestError


def adapted(family="qwen2", dtype=torch.float32, **settings):
    model = model_of(family, dtype)
    adapter = attach(model, config_of(family, **settings))
    adapter.set_values(values_like(adapter.v))
    return model, adapter


@pytest.mark.parametrize("family", FAMILIES)
def test_folded_is_hooked_and_the_weights_come_back_bit_for_bit(family):
    model, adapter = adapted(family)
    ids = tokens()
    hooked, base = logits(model, ids), {k: t.clone() for k, t in model.state_dict().items()}
    with adapter.folded() as report:
        assert report is None
        name = adapter.modules_by_group[0][0]
        assert not torch.equal(model.state_dict()[f"{name}.weight"], base[f"{name}.weight"])
        assert torch.allclose(logits(model, ids), hooked, rtol=0, atol=1e-5)
    assert all(torch.equal(model.state_dict()[key], base[key]) for key in base)
    assert torch.equal(logits(model, ids), hooked)


def test_the_weights_come_back_after_an_error_too():
    model, adapter = adapted()
    base = model.model.layers[0].mlp.up_proj.weight.clone()
    with pytest.raises(ZeroDivisionError), adapter.folded():
        1 / 0  # noqa: B018
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, base)
    with adapter.disabled():
        pass


def test_a_graph_from_before_a_fold_still_gives_its_gradient():
    model, adapter = adapted()
    expected = torch.autograd.grad(loss(model, tokens()), adapter.v)[0]
    before = loss(model, tokens())
    with adapter.folded():
        logits(model, tokens())
    assert torch.equal(torch.autograd.grad(before, adapter.v)[0], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_refused(dtype):
    _, adapter = adapted(dtype=dtype)
    assert not adapter.can_fold
    with pytest.raises(RequestError, match="rounds most of a tiny update away"):
        adapter.folded().__enter__()


def test_asked_for_half_precision_folds_and_reports_what_it_lost():
    model, adapter = adapted(dtype=torch.bfloat16)
    base = {k: t.clone() for k, t in model.state_dict().items()}
    adapter.set_values(1e-4 * values_like(adapter.v))
    with adapter.folded(allow_half=True) as tiny:
        pass
    adapter.set_values(values_like(adapter.v))
    with adapter.folded(allow_half=True) as large:
        applied = model.state_dict()["model.layers.0.mlp.up_proj.weight"]
        assert not torch.equal(applied, base["model.layers.0.mlp.up_proj.weight"])
    assert all(torch.equal(model.state_dict()[key], base[key]) for key in base)
    assert tiny.rounded_away > 0.3
    assert tiny.relative_error > 0.8
    assert abs(large.rounded_away) < 0.05
    assert large.relative_error < 0.2


def test_a_weight_that_another_module_shares_is_not_folded():
    model = model_of()
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    adapter = attach(model, config_of())
    assert not adapter.can_fold
    with pytest.raises(RequestError, match="tied to another module"):
        adapter.folded().__enter__()


def test_a_tied_head_is_rolled_out_with_the_hooks():
    model = model_of()
    adapter = attach(model, config_of(targets=("up_proj", "lm_head"), num_groups=1))
    adapter.set_values(values_like(adapter.v))
    expected = logits(model, tokens())
    with adapter.rollout():
        assert torch.equal(logits(model, tokens()), expected)


def test_a_model_in_half_precision_after_attaching_is_not_folded_in_silence():
    model, adapter = adapted()
    model.to(torch.bfloat16)
    assert not adapter.can_fold
    with pytest.raises(RequestError, match=r"bfloat16, which rounds"):
        adapter.folded().__enter__()
    with adapter.folded(allow_half=True) as report:
        assert report.relative_error > 0


def test_a_model_in_full_precision_after_attaching_is_folded_exactly():
    model, adapter = adapted(dtype=torch.bfloat16)
    model.float()
    hooked = logits(model, tokens())
    with adapter.folded(allow_half=True) as report:
        assert report is None
        assert torch.allclose(logits(model, tokens()), hooked, rtol=0, atol=1e-5)


@pytest.mark.parametrize("outer", ["disabled", "folded", "per_row"])
@pytest.mark.parametrize("inner", ["disabled", "folded", "per_row", "detach"])
def test_contexts_do_not_nest(outer, inner):
    _, adapter = adapted()

    def enter(name):
        values = (torch.zeros(2, *adapter.v.shape),) if name == "per_row" else ()
        return getattr(adapter, name)(*values)

    def use(name):
        return adapter.detach() if name == "detach" else enter(name).__enter__()

    with enter(outer), pytest.raises(RequestError, match=rf"inside {outer}\(\)"):
        use(inner)


@pytest.mark.parametrize("family", FAMILIES)
def test_per_row_with_k_adapters_is_k_separate_runs(family):
    model, adapter = adapted(family)
    ids, values = tokens(4), values_like(adapter.v, 4)
    with adapter.per_row(values):
        together = logits(model, ids)
    for row in range(4):
        adapter.set_values(values[row])
        assert torch.allclose(together[row], logits(model, ids[row : row + 1])[0], atol=1e-5)


def test_per_row_generates_with_a_kv_cache_as_k_separate_runs():
    model, adapter = adapted()
    ids, values = tokens(4, 5), values_like(adapter.v, 4, size=1.0)
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    with adapter.per_row(values):
        together = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    rows = []
    for row in range(4):
        adapter.set_values(values[row])
        one = ids[row : row + 1]
        rows.append(model.generate(one, attention_mask=torch.ones_like(one), **settings))
    assert torch.equal(together, torch.cat(rows))
    assert len({tuple(row.tolist()) for row in together[:, 5:]}) > 1


def test_per_row_samples_rows_that_generate_expands():
    model, adapter = adapted()
    values = values_like(adapter.v, 4)
    with adapter.per_row(values):
        made = model.generate(
            tokens(2, 5),
            attention_mask=torch.ones(2, 5),
            num_return_sequences=2,
            do_sample=True,
            max_new_tokens=2,
            pad_token_id=0,
        )
    assert made.shape[0] == 4


def test_per_row_passes_gradients_to_every_row():
    model, adapter = adapted()
    values = values_like(adapter.v, 3).requires_grad_()
    with adapter.per_row(values):
        logits(model, tokens())[1].sum().backward()
    assert values.grad[1].abs().min() > 0
    assert values.grad[[0, 2]].eq(0).all()
    assert adapter.v.grad is None


def test_per_row_refuses_another_number_of_rows():
    model, adapter = adapted()
    match = r"values for 2 rows, but model\.layers\.0\.self_attn\.q_proj .*\(3, 7, 32\)"
    with (
        adapter.per_row(torch.zeros(2, *adapter.v.shape)),
        pytest.raises(RequestError, match=match),
    ):
        logits(model, tokens(3))


def test_per_row_refuses_inputs_that_have_lost_their_rows():
    model, adapter = adapted()
    with (
        adapter.per_row(torch.zeros(6, *adapter.v.shape)),
        pytest.raises(RequestError, match="experts that regroup tokens"),
    ):
        model.model.layers[0].mlp(torch.ones(6, 32))


@pytest.mark.parametrize("by", ["argument", "config", "position", "model"])
def test_per_row_refuses_beams_even_where_the_rows_would_fit(by):
    model, adapter = adapted()
    model.generation_config.pad_token_id = 0
    config = type(model.generation_config)(num_beams=2, max_new_tokens=2)
    arguments = {"argument": {"num_beams": 2}, "config": {"generation_config": config}}
    if by == "model":
        model.generation_config.num_beams = 2
    with (
        adapter.per_row(torch.zeros(4, *adapter.v.shape)),
        pytest.raises(RequestError, match="beam"),
    ):
        model.generate(tokens(2), *([config] * (by == "position")), **arguments.get(by, {}))
    assert "generate" not in vars(model)


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 3), (2, 4, 2)])
def test_per_row_refuses_values_of_another_shape(shape):
    _, adapter = adapted()
    with pytest.raises(RequestError, match=r"\(batch, 4, 3\)"):
        adapter.per_row(torch.zeros(shape)).__enter__()


def test_per_row_in_bf16():
    model, adapter = adapted(dtype=torch.bfloat16)
    values = values_like(adapter.v, 3)
    with adapter.per_row(values):
        together = logits(model, tokens())
    adapter.set_values(values[2])
    alone = logits(model, tokens())[2]
    assert torch.allclose(
        together[2].float(), alone.float(), atol=0.05 * float(alone.detach().std())
    )


def test_quantised_layers_are_not_folded():
    class Coded(nn.Linear):
        pass

    model = model_of()
    old = model.model.layers[0].mlp.up_proj
    coded = Coded(old.in_features, old.out_features, bias=False)
    coded.weight = old.weight
    model.model.layers[0].mlp.up_proj = coded
    adapter = attach(model, config_of())
    adapter.set_values(values_like(adapter.v))
    with pytest.raises(RequestError, match=r"up_proj cannot be folded: it is a Coded"):
        adapter.folded().__enter__()
    expected, _ = adapted()
    assert torch.allclose(logits(model, tokens()), logits(expected, tokens()), atol=1e-5)


def test_rows_follow_values_that_change_in_place():
    model, adapter = adapted()
    values = torch.zeros(len(tokens()), *adapter.v.shape)
    with torch.no_grad(), adapter.per_row(values):
        base = logits(model, tokens())
        values += 1.0
        moved, again = logits(model, tokens()), logits(model, tokens())
    assert not torch.allclose(base, moved, atol=1e-4)
    assert torch.equal(moved, again)


def test_what_inference_mode_leaves_behind_meets_a_gradient_later() -> None:
    """A frozen v answers in inference mode, alone and by row; then something else is trained."""
    model = model_of()
    adapter = attach(model, config_of(u=2, num_groups=1))
    adapter.set_values(torch.ones_like(adapter.v))
    adapter.v.requires_grad_(False)
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        alone = model(ids).logits
        with adapter.per_row(torch.ones(1, *adapter.v.shape)):
            torch.testing.assert_close(model(ids).logits, alone)
    inputs = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=inputs).logits
    torch.testing.assert_close(logits.detach(), alone.clone())
    logits.sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.abs().sum() > 0
