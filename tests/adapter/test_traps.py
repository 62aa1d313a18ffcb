"""What goes wrong in silence elsewhere, each with its test."""

import copy
import pickle

import pytest
import torch
from test_layer import logits, loss
from torch import nn

from helpers.tiny import config_of, model_of, tokens, values_like
from tinylora.adapter import attach
from tinylora.errors import RequestError


def adapted(**settings):
    model = model_of()
    adapter = attach(model, config_of(**settings))
    adapter.set_values(values_like(adapter.v))
    return model, adapter


class Pair(nn.Module):
    """Two linear maps: small, because tracing a whole transformer takes many seconds.

    They are frozen, as base models often are: torch does guard on requires_grad, and compiles
    again by itself where attaching changes that.
    """

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.requires_grad_(False)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


PAIR = config_of(targets=("first", "second"), num_groups=1)
X = torch.linspace(-1, 1, 3 * 5 * 8).view(3, 5, 8)


def adapted_pair():
    model = Pair()
    adapter = attach(model, PAIR)
    adapter.set_values(values_like(adapter.v))
    return model, adapter


def compiled(model):
    """With the backend that changes nothing: what is at stake is which Python gets traced."""
    return torch.compile(model, backend="aot_eager")


@pytest.fixture
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_fresh_compiler")
class TestCompiled:
    def test_compiled_after_attaching_it_is_the_adapted_model_in_every_context(self):
        model, adapter = adapted_pair()
        expected, values = model(X), values_like(adapter.v, 3, seed=9)
        with adapter.disabled():
            base = model(X)
        with adapter.per_row(values):
            rows = model(X)
        fast = compiled(model)
        assert torch.allclose(fast(X), expected, atol=1e-5)
        with adapter.disabled():
            assert torch.allclose(fast(X), base, atol=1e-5)
        with adapter.per_row(values):
            assert torch.allclose(fast(X), rows, atol=1e-5)
        with adapter.folded():
            assert torch.allclose(fast(X), expected, atol=1e-5)
        adapter.zero()
        assert torch.allclose(fast(X), base, atol=1e-5)

    def test_its_gradient_is_that_of_the_model_that_is_not_compiled(self):
        model, adapter = adapted_pair()
        (expected,) = torch.autograd.grad(model(X).square().sum(), adapter.v)
        compiled(model)(X).square().sum().backward()
        assert torch.allclose(adapter.v.grad, expected, rtol=1e-4, atol=1e-6)

    def test_hooks_do_not_break_the_graph(self):
        model, _ = adapted_pair()
        model(X)
        assert torch._dynamo.explain(model)(X).graph_break_count == 0

    def test_an_adapter_attached_after_compilation_is_not_ignored(self):
        model = Pair()
        fast = compiled(model)
        base = fast(X)
        adapter = attach(model, PAIR)
        adapter.set_values(values_like(adapter.v))
        assert torch.allclose(fast(X), adapted_pair()[0](X), atol=1e-5)
        adapter.detach()
        assert torch.allclose(fast(X), base, atol=1e-5)

    def test_nor_is_one_that_is_attached_to_the_compiled_wrapper(self):
        fast = compiled(Pair())
        fast(X)
        adapter = attach(fast, PAIR)
        adapter.set_values(values_like(adapter.v))
        assert torch.allclose(fast(X), adapted_pair()[0](X), atol=1e-5)
        assert adapter.modules_by_group == [["first", "second"]]

    def test_nor_on_a_model_compiled_in_place(self):
        model = Pair()
        model.compile(backend="aot_eager")
        model(X)
        adapter = attach(model, PAIR)
        adapter.set_values(values_like(adapter.v))
        assert torch.allclose(model(X), adapted_pair()[0](X), atol=1e-5)

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_the_real_compiler_on_a_transformer_gives_the_same_logits_and_gradient(self):
        model, adapter = adapted()
        ids = tokens()
        expected = logits(model, ids)
        (gradient,) = torch.autograd.grad(loss(model, ids), adapter.v)
        fast = torch.compile(model)
        assert torch.allclose(logits(fast, ids), expected, atol=1e-4)
        loss(fast, ids).backward()
        assert torch.allclose(adapter.v.grad, gradient, rtol=1e-3, atol=1e-5)


def test_a_copy_of_the_model_is_the_base_model_and_stays_it():
    model, adapter = adapted()
    with adapter.disabled():
        base = logits(model, tokens())
    copied = copy.deepcopy(model)
    adapter.set_values(5 * values_like(adapter.v))
    assert torch.equal(logits(copied, tokens()), base)
    unpickled = pickle.loads(pickle.dumps(model))
    assert torch.equal(logits(unpickled, tokens()), base)


def test_a_copy_takes_an_adapter_of_its_own_and_leaves_the_first_alone():
    model, adapter = adapted()
    expected = logits(model, tokens())
    copied = copy.deepcopy(model)
    own = attach(copied, config_of(seed=7))
    own.set_values(values_like(own.v, seed=8))
    assert not torch.equal(logits(copied, tokens()), expected)
    loss(copied, tokens()).backward()
    assert adapter.v.grad is None
    assert torch.equal(logits(model, tokens()), expected)


def test_a_copy_of_a_model_with_a_registered_v_can_be_adapted_too():
    model = model_of()
    attach(model, config_of(), register=True)
    copied = copy.deepcopy(model)
    own = attach(copied, config_of(), register=True)
    assert copied.tinylora_v is own.v


@pytest.mark.parametrize("copied_by", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_a_model_with_a_registered_v_has_nothing_to_train(copied_by):
    model = model_of()
    adapter = attach(model, config_of(), register=True)
    with adapter.disabled():
        base = logits(model, tokens())
    adapter.set_values(values_like(adapter.v))
    copied = copied_by(model)
    assert not any(p.requires_grad for p in copied.parameters())
    assert [p for p in model.parameters() if p.requires_grad] == [adapter.v]
    assert torch.equal(logits(copied, tokens()), base)
    adapter.zero()
    assert copied.tinylora_v.any()  # of its own memory
    copied.load_state_dict(model.state_dict())
    assert [n for n, _ in copied.named_parameters()] == [n for n, _ in model.named_parameters()]


def test_a_registered_v_is_stepped_on_and_its_values_survive_a_copied_state():
    model = model_of()
    adapter = attach(model, config_of(), register=True)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    loss(model, tokens()).backward()
    gradient = adapter.v.grad.clone()
    optimizer.step()
    assert torch.equal(adapter.v, -gradient)
    for keep_vars in (False, True):
        state = copy.deepcopy(model.state_dict(keep_vars=keep_vars))
        assert torch.equal(state["tinylora_v"], adapter.v)
    adapter.zero()
    model.load_state_dict(state)
    assert torch.equal(adapter.v, -gradient)


def test_a_registered_v_that_was_cast_with_the_model_is_refused():
    model = model_of()
    adapter = attach(model, config_of(), register=True)
    model.to(torch.bfloat16)
    match = r"v is now torch\.bfloat16.*Cast the model before attaching"
    with pytest.raises(RequestError, match=match):
        logits(model, tokens())
    with adapter.disabled():
        logits(model, tokens())
    adapter.detach()
    attach(model, config_of(), register=True)
    logits(model, tokens())


def test_v_itself_cannot_be_replaced_by_something_that_no_hook_reads():
    _, adapter = adapted()
    with pytest.raises(AttributeError, match="v"):
        adapter.v = nn.Parameter(torch.ones(4, 3))


def test_an_adapter_is_not_copied_apart_from_its_model():
    _, adapter = adapted()
    with pytest.raises(RequestError, match="Save it and load it"):
        copy.deepcopy(adapter)


def test_attaching_twice_is_refused_until_the_first_is_detached():
    model, adapter = adapted()
    with pytest.raises(RequestError, match=r"already.*detach"):
        attach(model, config_of())
    with pytest.raises(RequestError, match="already"):
        attach(model.model.layers[0], config_of())
    adapter.detach()
    attach(model, config_of())


def test_a_refused_attach_leaves_the_model_as_it_was():
    model = model_of()
    with pytest.raises(RequestError, match="num_groups = 99"):
        attach(model, config_of(num_groups=99))
    assert all(p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


class Fused(nn.Module):
    """A block that multiplies with the weight of one of its maps, without calling it."""

    def __init__(self):
        super().__init__()
        self.q_proj, self.o_proj = nn.Linear(8, 8), nn.Linear(8, 8)
        self.is_fused = True

    def forward(self, x):
        first = x @ self.q_proj.weight.T if self.is_fused else self.q_proj(x)
        return self.o_proj(first)


def test_a_module_that_the_first_forward_pass_does_not_call_is_named():
    model = nn.Sequential(Fused())
    attach(model, config_of(targets=("q_proj", "o_proj"), num_groups=1))
    for _ in range(2):
        with pytest.raises(RequestError, match=r"never called 0\.q_proj: a fused kernel"):
            model(torch.ones(1, 8))
    model[0].is_fused = False
    model(torch.ones(1, 8))
    assert not model[0]._forward_hooks


def test_a_backbone_called_by_itself_is_checked_too():
    model = model_of()
    attach(model, config_of())
    model.model.layers[1].mlp.forward = lambda x: x
    with pytest.raises(RequestError, match=r"layers\.1\.mlp\.gate_proj, model\.layers\.1\.mlp\.up"):
        model.model(input_ids=tokens())


def test_the_check_ends_when_it_is_passed():
    model = nn.Sequential(Fused())
    model[0].is_fused = False
    attach(model, config_of(targets=("q_proj", "o_proj"), num_groups=1))
    assert len(model[0]._forward_hooks) == 1
    model(torch.ones(1, 8))
    assert not model[0]._forward_hooks
    model[0].is_fused = True
    model(torch.ones(1, 8))


def test_modules_without_defined_directions_are_left_out_and_listed():
    model, ids = model_of(), tokens()
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.copy_(torch.eye(32))
    with pytest.warns(UserWarning, match=r"1 of 14 modules are left out.*0\.self_attn\.o_proj"):
        adapter = attach(model, config_of(num_groups=None))
    assert adapter.left_out == ["model.layers.0.self_attn.o_proj"]
    assert adapter.num_trainable == 13 * 3
    loss(model, ids).backward()


def test_a_model_that_defines_no_directions_at_all_is_refused():
    model = nn.ModuleDict({"q": nn.Linear(8, 8)})
    nn.init.zeros_(model["q"].weight)
    with pytest.raises(RequestError, match=r"None of the 1 matched modules.*random"):
        attach(model, config_of(targets=("q",), num_groups=1))


def test_a_registered_v_is_found_by_foreign_trainers_and_gone_after_detach():
    model = model_of()
    adapter = attach(model, config_of(), register=True)
    assert [p for p in model.parameters() if p.requires_grad] == [adapter.v]
    assert "tinylora_v" in model.state_dict()
    adapter.detach()
    assert "tinylora_v" not in model.state_dict()


def test_inputs_given_by_name_are_adapted_as_well():
    model = nn.Sequential(nn.Linear(8, 8))
    adapter = attach(model, config_of(targets=("0",), num_groups=1))
    adapter.set_values(values_like(adapter.v))
    x = torch.ones(2, 8)
    assert torch.equal(model[0](input=x), model[0](x))


def test_an_error_in_one_modules_weights_names_it():
    model = model_of()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(RequestError, match=r"model\.layers\.1\.mlp\.up_proj: .*inf or nan"):
        attach(model, config_of())


def test_attach_and_hooks_leave_the_global_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    model = model_of()
    torch.manual_seed(3)
    adapter = attach(model, config_of(basis="random"))
    logits(model, tokens())
    assert adapter.num_trainable == 12
    assert torch.equal(torch.rand(1), expected)
