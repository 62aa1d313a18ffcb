"""All settings by all choices of method, algorithm and rollout: who has one, and who refuses it."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from tinylora.errors import RequestError
from tinylora.settings import FIELDS, TrainConfig, combine, flatten, recorded, unflatten
from tinylora.settings.choices import CHOICES, chosen, names_of, readers

VALUES = {
    "rollout": {"http://HOST:PORT": "http://a:8000"},
    "method": {"peft:NAME": "peft:randlora"},
}
OTHER: dict[str, Any] = {  # where the default itself cannot be given, or says nothing
    "adapter_dir": "/tmp",
    "rollout_cache_gib": 2.0,
    "learning_rate": 0.1,
    "population": 5,
    "rollout_tolerance": 0.2,
    "micro_batch_tokens": 512,
}
NEEDED: dict[tuple[Any, str], dict[str, Any]] = {  # without these they have no effect
    ("sft", "samples_per_prompt"): {"references": "own"},
    ("npg", "max_draws"): {"snr": 2.0},
}
NEED_V = ("npg", "cma-es", "bayes", "random-search")  # every row of a batch has a v of its own
COMBINATIONS = [
    (method, algorithm, rollout)
    for method, algorithm, rollout in product(*CHOICES.values())
    if method in ("tinylora", "lora-xs") or algorithm not in NEED_V
]


def settings_of(*names: str) -> dict[str, Any]:
    """The settings that choose these, by the names of the choices."""
    held = dict(zip(CHOICES, names, strict=True))
    return {choice: VALUES.get(choice, {}).get(name, name) for choice, name in held.items()}


def value_of(name: str) -> Any:
    return OTHER.get(name, FIELDS[name].get_default())


def given(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The setting beside these, and what it needs to make sense."""
    needed = NEEDED.get((settings.get("algorithm"), name), {})
    return {**settings, **needed, name: value_of(name)}


CASES = [
    (choice, value, name)
    for choice in CHOICES
    for value in CHOICES[choice]
    for name in names_of(choice)
]


@pytest.mark.parametrize(("choice", "value", "name"), CASES)
def test_a_setting_belongs_to_the_choices_whose_class_has_it(
    choice: str, value: str, name: str
) -> None:
    settings = {choice: VALUES.get(choice, {}).get(value, value)}
    flat = given(name, settings)
    if name in CHOICES[choice][value].model_fields:
        assert name in flatten(unflatten(flat))
        return
    with pytest.raises(RequestError) as caught:
        unflatten(flat)
    said = str(caught.value)
    assert said.startswith(f"{name} = {value_of(name)} with {choice} = ")
    assert ", ".join(readers(choice, name)) in said
    assert f"Leave {name} out" in said


@pytest.mark.parametrize("names", COMBINATIONS, ids="-".join)
def test_flat_and_nested_are_the_same_for_every_combination(names: tuple[str, ...]) -> None:
    config = unflatten(settings_of(*names))
    flat = flatten(config)
    assert unflatten(flat) == config
    of_choices = {name for choice in CHOICES for name in names_of(choice)}
    has = {name for choice in CHOICES for name in held(choice, config)}
    idle = {name for algorithm, name in NEEDED if algorithm == config.algorithm}
    assert {name for name in flat if name in of_choices} == has - idle


def held(choice: str, config: TrainConfig) -> list[str]:
    kind = chosen(choice, {choice: getattr(config, choice)})
    assert kind is not None
    shared = [name for other in CHOICES for name in names_of(other) if other != choice]
    return [name for name in kind.model_fields if name not in shared]


@pytest.mark.parametrize("names", COMBINATIONS, ids="-".join)
def test_what_an_older_run_recorded_of_other_choices_is_dropped(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    """Older runs recorded every setting, whoever reads it."""
    chosen_by = settings_of(*names)
    path = tmp_path / "config.yaml"
    wanted = flatten(unflatten(chosen_by))
    everything = {name: field.get_default() for name, field in FIELDS.items()} | wanted
    path.write_text(yaml.safe_dump(jsonable(everything)), encoding="utf-8")
    assert flatten(unflatten(recorded(path))) == wanted


def test_the_group_size_of_an_older_run_is_kept(tmp_path: Path) -> None:
    """Its config.yaml also says `references: task`, which GRPO does not read."""
    path = tmp_path / "config.yaml"
    path.write_text("algorithm: grpo\nreferences: task\nsamples_per_prompt: 4\n")
    assert recorded(path) == {"algorithm": "grpo", "samples_per_prompt": 4}


def jsonable(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()}


def test_a_flag_that_chooses_leaves_the_recipes_settings_of_the_other_choice() -> None:
    recipe = {"kl_coef": 0.1, "learning_rate": 0.2, "steps": 3, "rank": 4}
    by_sft = combine(recipe, {"algorithm": "sft"})
    assert by_sft == {"learning_rate": 0.2, "steps": 3, "rank": 4, "algorithm": "sft"}
    by_full = combine(recipe, {"method": "full"})
    assert by_full == {"kl_coef": 0.1, "learning_rate": 0.2, "steps": 3, "method": "full"}
    served = {"rollout": "http://a:8000", "rollout_timeout_s": 9.0}
    assert combine(served, {"rollout": "transformers"}) == {"rollout": "transformers"}
    assert combine(recipe, {"steps": 9}) == {**recipe, "steps": 9}


def test_a_flag_that_nothing_reads_is_refused_all_the_more() -> None:
    flat = combine({"steps": 3}, {"algorithm": "sft", "kl_coef": 0.1})
    with pytest.raises(RequestError, match=r"kl_coef = 0.1 with algorithm = sft, which does not"):
        unflatten(flat)


def test_validation_problems_without_validation_are_refused() -> None:
    with pytest.raises(RequestError, match=r"validation_problems = 9 without eval_every"):
        TrainConfig(validation_problems=9)
    assert TrainConfig(validation_problems=9, eval_every=5).validation_problems == 9
    assert "validation_problems" not in flatten(TrainConfig())
