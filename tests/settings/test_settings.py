"""Settings: ranges, spelling, flat and nested forms, and no setting that nothing reads."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import tinylora
from tinylora.errors import RequestError
from tinylora.settings import (
    FIELDS,
    Adam,
    AdapterConfig,
    TrainConfig,
    combine,
    flatten,
    load_recipe,
    server_addresses,
    settings_yaml,
    unflatten,
    with_budget,
)
from tinylora.settings.base import Settings

PACKAGE = Path(tinylora.__file__).parent
PARTS = ("adapter", "learning", "engine")
RECIPES = Path(__file__).parents[2] / "recipes"


def test_the_default_is_one_number_in_each_of_thirteen_groups() -> None:
    config = TrainConfig()
    assert (config.adapter.u, config.adapter.rank, config.adapter.num_groups) == (1, 2, 13)
    assert config.model == config.task == "pocket"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"u": 0}, r"u = 0, but it must be at least 1: how many parameters each group"),
        ({"u": "many"}, r"u = many, but it must be a whole number"),
        ({"u": 1.5}, "u = 1.5, but it must be a whole number"),
        ({"rank": 0}, "rank = 0, but it must be at least 1"),
        ({"num_groups": 0}, "num_groups = 0, but it must be at least 1"),
        ({"params": 0}, "params = 0, but it must be at least 1"),
        ({"seed": -1}, "seed = -1, but it must be at least 0"),
        ({"temperature": 0}, "temperature = 0, but it must be above 0"),
        ({"learning_rate": "inf"}, "learning_rate = inf, but it must be a finite number"),
        ({"samples_per_prompt": 1}, "samples_per_prompt = 1, but it must be at least 2"),
        ({"clip_low": 1.0}, "clip_low = 1.0, but it must be below 1"),
        ({"schedule": "cos"}, "schedule = cos, but it must be 'constant', 'cosine' or 'linear'"),
        ({"quantize": "fp4"}, "quantize = fp4, but it must be 'none', 'nf4' or 'int8': how the"),
        ({"scale": "maybe"}, "scale = maybe, but it must be true or false"),
        ({"targets": []}, "targets = .., but it must be a list of at least 1"),
        ({"layers": "9-3"}, r'layers = "9-3" names no blocks. Use all, early, middle, late'),
        ({"n_tie": 0}, "n_tie = 0, but it must be at least 1: instead of num_groups"),
        (
            {"n_tie": 16, "num_groups": 4},
            "num_groups = 4 together with n_tie = 16.* Set only one of them",
        ),
        ({"params": 3, "n_tie": 16}, "params = 3 together with n"),
        ({"projection": "identity"}, r'u = 1 with projection = "identity".*Use u = 4'),
        ({"basis": "random", "subspace": "middle"}, r'subspace = "middle" with basis = "random"'),
        (
            {"params": 3, "u": 2},
            "params = 3 together with u, but params picks u and num_groups itself",
        ),
        (
            {"fsdp": True, "method": "lora"},
            "fsdp = true works only with tinylora and lora-xs, ",
        ),
        (
            {"fsdp": True, "quantize": "nf4"},
            "fsdp = true with quantize = nf4, but quantised weights cannot",
        ),
        ({"steps": None}, "steps = None, but it must be a whole number"),
    ],
)
def test_wrong_values_are_refused_in_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        unflatten(settings)


def test_every_wrong_value_has_its_sentence() -> None:
    with pytest.raises(RequestError, match=r"(?s)^steps = 0, .*\nprompts_per_step = 0, "):
        TrainConfig(steps=0, prompts_per_step=0)


def test_unknown_setting_has_the_nearest_spelling() -> None:
    with pytest.raises(RequestError, match=r"learning_rat is not a setting.* Did you mean learn"):
        unflatten({"learning_rat": 1})
    with pytest.raises(
        RequestError, match=r"rnk is not a setting of AdapterConfig. Did you mean rank"
    ):
        AdapterConfig(rnk=2)  # type: ignore[call-arg]


def test_flat_and_nested_forms_are_the_same_settings() -> None:
    config = TrainConfig(steps=7, adapter=AdapterConfig(u=4, num_groups=None, targets=("o_proj",)))
    assert unflatten(flatten(config)) == config
    flat = flatten(config)
    assert list(flat) == [name for name in FIELDS if name in flat]
    unspent = TrainConfig(params=5)
    assert unflatten(flatten(unspent)) == unspent


def test_texts_from_the_command_line_are_parsed() -> None:
    settings = {"u": "4", "num_groups": "none", "targets": "q_proj, v_proj", "scale": "false"}
    adapter = unflatten({**settings, "learning_rate": "1e-3"}).adapter
    assert (adapter.u, adapter.num_groups, adapter.scale) == (4, None, False)
    assert adapter.targets == ("q_proj", "v_proj")


def test_one_seed_serves_run_and_projections() -> None:
    assert TrainConfig(seed=3).adapter.seed == 3
    assert TrainConfig(adapter=AdapterConfig(seed=4)).seed == 4
    assert unflatten({"seed": "5"}).adapter.seed == 5
    with pytest.raises(RequestError, match=r"seed = 1 together with adapter.seed = 4"):
        TrainConfig(seed=1, adapter=AdapterConfig(seed=4))


def test_a_seed_given_twice_is_compared_as_a_number() -> None:
    config = TrainConfig(seed="3", adapter={"seed": 3})  # type: ignore[arg-type]
    assert config.seed == config.adapter.seed == 3


def learning(config: TrainConfig) -> Adam:
    assert isinstance(config.learning, Adam)
    return config.learning


def test_the_rate_follows_the_model_unless_it_is_given() -> None:
    assert learning(TrainConfig()).learning_rate == 5e-2
    assert learning(TrainConfig(model="some/model")).learning_rate == 2e-4
    for given, rate in (("none", 2e-4), (0.3, 0.3)):
        config = unflatten({"model": "some/model", "learning_rate": given})
        assert learning(config).learning_rate == rate
    assert flatten(TrainConfig())["learning_rate"] == 5e-2


def test_a_wrong_value_brings_no_sentence_about_the_rate() -> None:
    with pytest.raises(RequestError) as caught:
        TrainConfig(model=3, steps=0)  # type: ignore[arg-type]
    assert "learning_rate" not in str(caught.value)


@pytest.mark.parametrize(
    ("rollout", "addresses"),
    [
        ("transformers", []),
        ("vllm", []),
        ("http://a:8000", ["http://a:8000"]),
        ("http://a:8000/, https://b.c/x", ["http://a:8000", "https://b.c/x"]),
    ],
)
def test_engines_and_addresses_of_servers(rollout: str, addresses: list[str]) -> None:
    assert unflatten({"rollout": rollout}).rollout == rollout
    assert server_addresses(rollout) == addresses


@pytest.mark.parametrize("rollout", ["", "vlm", "a:8000", "http://a:8000,", "http://a,vllm"])
def test_what_is_no_engine_is_refused(rollout: str) -> None:
    with pytest.raises(RequestError, match=f'rollout = "{rollout}" is not an engine. Use t'):
        unflatten({"rollout": rollout})


def test_flags_come_before_the_recipe() -> None:
    assert combine({"steps": 5, "u": 2}, {"steps": 9}) == {"steps": 9, "u": 2}


def test_a_budget_flag_replaces_the_recipes_whole_budget() -> None:
    assert combine({"u": 2, "num_groups": 3}, {"params": 13}) == {"params": 13}
    assert combine({"params": 13}, {"u": 2}) == {"u": 2}
    assert combine({"u": 2, "n_tie": 16}, {"params": 13}) == {"params": 13}


def test_a_flag_for_one_way_to_share_replaces_the_other() -> None:
    assert combine({"u": 2, "num_groups": 3}, {"n_tie": 16}) == {"u": 2, "n_tie": 16}
    assert combine({"u": 2, "n_tie": 16}, {"num_groups": 3}) == {"u": 2, "num_groups": 3}
    assert combine({"n_tie": 16}, {"u": 2}) == {"u": 2, "n_tie": 16}


def test_n_tie_stands_alone_in_every_form() -> None:
    config = unflatten({"n_tie": "16", "u": 2})
    assert (config.adapter.n_tie, config.adapter.num_groups, config.adapter.u) == (16, None, 2)
    assert unflatten(flatten(config)) == config
    assert TrainConfig(method="lora-xs", adapter={"n_tie": 16}).adapter.n_tie == 16  # type: ignore[arg-type]


def test_a_spent_budget_keeps_every_other_setting() -> None:
    config = with_budget(TrainConfig(params=13, steps=7, seed=2), 1, 13)
    assert (config.adapter.u, config.adapter.num_groups, config.params) == (1, 13, None)
    assert (config.steps, config.adapter.seed) == (7, 2)


def test_written_settings_are_a_recipe_of_the_same_run(tmp_path: Path) -> None:
    config = TrainConfig(steps=3, adapter=AdapterConfig(num_groups=None))
    path = tmp_path / "config.yaml"
    path.write_text(settings_yaml(flatten(config)), encoding="utf-8")
    assert unflatten(load_recipe(path)) == config


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- a\n- b\n", "contains a list, but a recipe consists of lines of"),
        ("a: [", "is not YAML: while parsing"),
        ("stepz: 3\n", r"recipe.yaml: stepz is not a setting. Did you mean steps\?"),
    ],
)
def test_a_malformed_recipe_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RequestError, match=sentence):
        load_recipe(path)


def test_an_empty_recipe_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("# nothing\n", encoding="utf-8")
    assert load_recipe(path) == {}


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig().steps = 3  # type: ignore[misc]


def test_every_setting_has_a_reader() -> None:
    """A setting that nothing reads does nothing, and nobody would notice."""
    reads = set().union(
        *(settings_read(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py"))
    )
    assert {*FIELDS, *fields_of(Settings)} - reads == set()


def fields_of(kind: type[Settings]) -> set[str]:
    """The fields of every class of settings; `adapter`, `learning` and `engine` are parts."""
    if not kind.__module__.startswith("tinylora.settings"):
        return set()
    own = {name for name in kind.model_fields if name not in PARTS}
    return own.union(*(fields_of(other) for other in kind.__subclasses__()))


def settings_read(source: str) -> set[str]:
    """Attributes of what this package calls its settings; a model's config is something else."""
    return {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and re.fullmatch(
            r"((job|self|held|contents|prepared|loop)\.)?(config|settings|learning)"
            r"(\.(adapter|learning|engine|passes))?",
            ast.unparse(node.value),
        )
    }


def test_only_settings_count_as_read() -> None:
    source = "adapter.model, model.config.seed, job.base.model.config.u, config.steps, u"
    assert settings_read(source) == {"steps"}
    assert settings_read("job.config.adapter.rank, settings.sharing") >= {"rank", "sharing"}


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in FIELDS.items() if not field.description] == []


def test_every_recipe_parses() -> None:
    paths = [path for path in sorted(RECIPES.rglob("*.yaml")) if "grids" not in path.parts]
    assert len(paths) == 8
    for path in paths:
        unflatten(load_recipe(path))
        assert path.read_text(encoding="utf-8").startswith("# tinylora train ")
