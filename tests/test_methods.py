"""The comparison methods: their counts, their exactness at the start, their files."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM

import tinylora
from helpers.shapes import SHAPES, skeleton
from tinylora import RequestError
from tinylora.adapter.modules import linear_maps
from tinylora.methods import method_of
from tinylora.settings import TrainConfig, flatten, unflatten

OF_PEFT = ["peft:randlora", "peft:hra"]  # added to a weight, multiplied with it
OTHERS = ["lora-xs", "lora", "vera", "bias-only", "full", *OF_PEFT]


@pytest.fixture
def model(tiny_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_folder).eval()


def logits(model: LlamaForCausalLM) -> Tensor:
    output: Tensor = model(torch.tensor([[2, 3, 4, 5, 6]])).logits
    return output.detach()


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("tinylora", {"u": 1, "num_groups": None}),
        ("lora-xs", {"rank": 2}),
        ("lora", {"rank": 8}),
        ("vera", {"rank": 64}),
        ("bias-only", {}),
        ("full", {}),
    ],
)
def test_counts_are_those_of_table_1(method: str, settings: dict[str, Any], size: str) -> None:
    d, ff, kv, layers = SHAPES[size]
    rank = settings.get("rank", 2)
    shapes = [(d, d), (kv, d), (kv, d), (d, d), (ff, d), (ff, d), (d, ff)]  # (d_out, d_in)
    expected = layers * sum(
        {
            "tinylora": 1,
            "lora-xs": rank**2,
            "lora": rank * (d_out + d_in),
            "vera": rank + d_out,
            "bias-only": d_out,
            "full": d_out * d_in,
        }[method]
        for d_out, d_in in shapes
    )
    config = unflatten({"method": method, **settings})
    maps = linear_maps(skeleton(size), config.adapter.targets)
    assert method_of(method).count(maps, config.adapter) == expected


@pytest.mark.parametrize("method", ["tinylora", *OTHERS])
def test_the_count_is_that_of_the_parameters(method: str, model: Any) -> None:
    config = unflatten({"method": method})
    maps = linear_maps(model, config.adapter.targets)
    policy = method_of(method).attach(model, config.adapter)
    num = sum(parameter.numel() for parameter in policy.parameters())
    assert num == policy.num_trainable == method_of(method).count(maps, config.adapter)


@pytest.mark.parametrize("method", OTHERS)
def test_a_method_starts_at_the_base_and_leaves_no_trace(method: str, model: Any) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    base = logits(model)
    policy = method_of(method).attach(model, unflatten({"method": method}).adapter)
    assert torch.allclose(logits(model), base, atol=1e-6)
    nudge(policy)
    changed = logits(model)
    assert not torch.allclose(changed, base, atol=1e-3)
    with policy.reference():
        assert torch.allclose(logits(model), base, atol=1e-6)
    with policy.rollout():
        assert torch.allclose(logits(model), changed, atol=1e-5)
    assert torch.equal(logits(model), changed)
    policy.detach()
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("method", OTHERS)
def test_what_is_saved_answers_alike_on_a_fresh_model(
    method: str, model: Any, tiny_folder: Path, tmp_path: Path
) -> None:
    config = unflatten({"method": method}).adapter
    policy = method_of(method).attach(model, config)
    nudge(policy)
    num_bytes = policy.save(tmp_path, "fp32")
    assert num_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    fresh = AutoModelForCausalLM.from_pretrained(tiny_folder).eval()
    method_of(method).load(fresh, tmp_path, config)
    assert torch.allclose(logits(fresh), logits(model), atol=1e-6)


@pytest.mark.parametrize("method", ["lora", "vera", *OF_PEFT])
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_peft_reads_the_run_folder(
    method: str, model: Any, tiny_folder: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    policy = method_of(method).attach(model, unflatten({"method": method}).adapter)
    nudge(policy)
    policy.save(tmp_path, "fp32")
    fresh = AutoModelForCausalLM.from_pretrained(tiny_folder).eval()
    PeftModel.from_pretrained(fresh, tmp_path)
    assert torch.allclose(logits(fresh), logits(model), atol=1e-6)


@pytest.mark.parametrize("method", OTHERS)
def test_a_gradient_reaches_what_is_trained_and_nothing_else(method: str, model: Any) -> None:
    policy = method_of(method).attach(model, unflatten({"method": method}).adapter)
    nudge(policy)
    model(torch.tensor([[2, 3, 4]])).logits.square().sum().backward()
    trained = {id(parameter) for parameter in policy.parameters()}
    assert all(p.grad is not None and bool(p.grad.any()) for p in policy.parameters())
    assert all(p.grad is None for p in model.parameters() if id(p) not in trained)


def test_half_precision_weights_are_not_trained_in_place(model: Any) -> None:
    with pytest.raises(RequestError, match=r"method = full, but .* is torch.bfloat16: steps as"):
        method_of("full").attach(model.bfloat16(), TrainConfig(method="full").adapter)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("method", OTHERS)
def test_a_run_by_each_method(
    method: str, tiny_folder: Path, task_name: str, tmp_path: Path
) -> None:
    config = TrainConfig(
        model=str(tiny_folder),
        task=task_name,
        method=method,  # type: ignore[arg-type]
        steps=2,
        prompts_per_step=4,
        samples_per_prompt=4,
        eval_samples=1,
        output=str(tmp_path / "run"),
    )
    summary = tinylora.train(config, console=Console(quiet=True))
    assert summary["method"] == method
    assert summary["steps"] == 2
    assert unflatten(flatten(config)) == config
    longer = config.model_copy(update={"steps": 3})
    assert tinylora.train(longer, resume=True, console=Console(quiet=True))["steps"] == 3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"method": "lora", "u": 3},
            "u = 3 with method = lora, which does not read it.*= tinyl",
        ),
        (
            {"method": "full", "rank": 4},
            "rank = 4 with method = full, which does not.*lora, vera",
        ),
        ({"method": "lora-xs", "u": 3}, "u = 3 with method = lora-xs"),
        ({"method": "vera", "params": 13}, "params = 13 with method = vera, whose count"),
    ],
)
def test_settings_that_a_method_has_not_are_refused(
    settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RequestError, match=sentence):
        unflatten(settings)


def nudge(policy: Any) -> None:
    """Other numbers than those of the start, the same for each run."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        ("nosuch", {}, "the installed PEFT has no method of this name for linear layers"),
        ("prefix_tuning", {}, "the installed PEFT has no method of this name for linear layers"),
        ("adalora", {"total_step": 9}, "moves ranks between layers during training"),
        ("pvera", {}, "gives different answers to the same tokens"),
        ("poly", {}, "PEFT refuses this: task_ids should not be None"),
        ("oft", {"rank": 3}, "PEFT refuses this: .*unexpected keyword argument 'rank'"),
        ("oft", {"target_modules": "all"}, "which targets and layers choose"),
    ],
)
def test_a_method_of_peft_that_the_loop_cannot_train_is_refused(
    kind: str, settings: dict[str, Any], sentence: str, model: Any
) -> None:
    config = unflatten({"method": f"peft:{kind}", "peft_settings": settings})
    with pytest.raises(RequestError, match=sentence):
        method_of(config.method).attach(model, config.adapter)


def test_settings_of_a_peft_method_come_as_yaml_or_from_a_file(tmp_path: Path, model: Any) -> None:
    file = tmp_path / "randlora.yaml"
    file.write_text("r: 4\n")
    counts = []
    for given in ("{r: 4}", str(file), {"r": 8}):
        config = unflatten({"method": "peft:randlora", "peft_settings": given})
        counts.append(
            method_of(config.method).count(
                linear_maps(model, config.adapter.targets), config.adapter
            )
        )
    assert counts[0] == counts[1] != counts[2]
    for wrong in ("r", "{", "missing.yaml"):
        with pytest.raises(
            RequestError, match=rf"{re.escape(wrong)} (is not a mapping|cannot be read)"
        ):
            unflatten({"method": "peft:randlora", "peft_settings": wrong})
    with pytest.raises(RequestError, match=r"peft_settings = .* with method = lora"):
        unflatten({"method": "lora", "peft_settings": {"r": 8}})
    with pytest.raises(RequestError, match='method = "lor" is not a method'):
        unflatten({"method": "lor"})
