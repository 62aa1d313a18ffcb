"""Groups and budgets, with the cases computed by hand."""

import pytest

from tinylora.adapter.sharing import (
    assign_groups,
    budget,
    groups_of,
    module_types,
    sharing_note,
    table,
)
from tinylora.errors import RequestError
from tinylora.settings import AdapterConfig

TYPES = ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj")
MODULES = [f"model.layers.{layer}.{kind}" for layer in range(4) for kind in TYPES]


def test_tiled_groups_are_runs_of_neighbours_in_depth():
    assert assign_groups(MODULES, 4) == [MODULES[i : i + 3] for i in (0, 3, 6, 9)]


def test_structured_groups_hold_one_type_each():
    groups = assign_groups(MODULES, 3, "structured")
    assert groups == [[f"model.layers.{i}.{kind}" for i in range(4)] for kind in TYPES]


def test_structured_groups_of_a_type_are_runs_in_depth():
    groups = assign_groups(MODULES, 6, "structured")
    assert groups[1] == ["model.layers.2.self_attn.q_proj", "model.layers.3.self_attn.q_proj"]


def test_196_modules_in_100_groups_are_groups_of_one_and_two():
    sizes = [len(group) for group in assign_groups([f"m.{i}" for i in range(196)], 100)]
    assert (sizes.count(1), sizes.count(2)) == (4, 96)


@pytest.mark.parametrize("sharing", ["tiled", "structured"])
@pytest.mark.parametrize("num_groups", range(1, 13))
def test_sizes_differ_by_at_most_one_and_every_module_is_in_one_group(num_groups, sharing):
    groups = assign_groups(MODULES, num_groups, sharing)
    sizes = {len(group) for group in groups}
    assert len(groups) == num_groups
    assert max(sizes) - min(sizes) <= 1
    assert sorted(name for group in groups for name in group) == sorted(MODULES)


def test_no_number_of_groups_is_one_group_per_module():
    assert assign_groups(MODULES, None) == [[name] for name in MODULES]


def test_more_groups_than_modules_is_refused():
    with pytest.raises(RequestError, match=r"num_groups = 13, but only 12 modules matched"):
        assign_groups(MODULES, 13)


@pytest.mark.parametrize(
    ("num_modules", "n_tie", "num_groups"),
    [  # every count of the paper's figure 1 and table 2: 28 and 36 blocks of seven
        *((196, n_tie, -(-196 // n_tie)) for n_tie in (256, 128, 64, 32, 16, 8, 4, 2, 1)),
        (252, 16, 16),
        (252, 4, 63),
        (252, 1, 252),
    ],
)  # fmt: skip
@pytest.mark.parametrize("sharing", ["tiled", "structured"])
def test_n_tie_gives_the_counts_of_the_paper(num_modules, n_tie, num_groups, sharing):
    modules = [f"layers.{i}.{kind}" for i in range(num_modules // 7) for kind in "qkvogud"]
    groups = assign_groups(modules, None, sharing, n_tie)
    assert len(groups) == num_groups
    assert [len(names) for names in groups[:-1]] == [n_tie] * (num_groups - 1)
    assert len(groups[-1]) == num_modules - n_tie * (num_groups - 1)
    whole = assign_groups(modules, 1, sharing)[0]
    assert [name for names in groups for name in names] == whole  # cut, and in the same order


def test_the_settings_choose_between_the_two():
    assert groups_of(MODULES, AdapterConfig(n_tie=5)) == assign_groups(MODULES, None, "tiled", 5)
    config = AdapterConfig(num_groups=3, sharing="structured")
    assert groups_of(MODULES, config) == assign_groups(MODULES, 3, "structured")


def test_the_default_fits_a_model_with_fewer_modules():
    assert groups_of(MODULES, AdapterConfig()) == [[name] for name in MODULES]
    assert "13 groups, but only 12 modules" in sharing_note(AdapterConfig(), 12)
    assert sharing_note(AdapterConfig(), 13) == sharing_note(AdapterConfig(num_groups=13), 12) == ""
    assert len(groups_of([f"m.{i}" for i in range(13)], AdapterConfig())) == 13
    with pytest.raises(RequestError, match="num_groups = 13, but only 12 modules matched"):
        groups_of(MODULES, AdapterConfig(num_groups=13))


def test_module_types_take_the_layer_out():
    assert module_types(MODULES) == [f"model.layers.*.{kind}" for kind in TYPES]


@pytest.mark.parametrize(
    ("num_params", "expected"),
    [
        (1, (1, 1)),
        (13, (1, 13)),
        (196, (1, 196)),
        (392, (2, 196)),
        (198, (2, 99)),  # fewer, unique numbers: u = 2 before u = 3 in 66 groups
        (512, (4, 128)),
        (196 * 13, (13, 196)),
    ],
)
def test_a_budget_takes_u_down_to_one_before_it_ties(num_params, expected):
    assert budget(num_params, 196) == expected


def test_a_budget_that_cannot_be_spread_names_the_nearest_that_can():
    with pytest.raises(RequestError, match=r"196 \(u = 1 in 196 groups\), or 198 \(u = 2 in 99"):
        budget(197, 196)


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(RequestError, match="params = 0"):
        budget(0, 196)


def test_the_table_shows_every_group_and_cuts_a_long_one():
    rows = table(assign_groups(MODULES, 2), u=5)
    assert rows[1:] == [
        ("0", "6", "5", MODULES[0], MODULES[5]),
        ("1", "6", "5", MODULES[6], MODULES[11]),
    ]
    assert table(assign_groups(MODULES, None), u=1, max_rows=4)[3][1] == "8 more groups"
