"""Degrees of freedom by arithmetic, against the rank of the matrix itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.tiny import config_of, model_of
from tinylora.adapter import AdapterConfig, attach, files
from tinylora.adapter.factors import projections
from tinylora.adapter.freedom import degrees_of_freedom, described, described_file, surplus
from tinylora.adapter.sharing import groups_of

MODULES = [f"model.layers.{i}.mlp.{kind}" for i in range(4) for kind in ("up_proj", "down_proj")]


def measured(groups, config):
    """The rank of v -> all R, a block (modules x rank^2, u) for each group."""
    blocks = [
        torch.cat([projections(name, config).flatten(1).T for name in names]) for names in groups
    ]
    return int(np.linalg.matrix_rank(torch.block_diag(*blocks).numpy()))


@pytest.mark.parametrize("num_groups", [1, 2, 3, 8, None])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("projection", ["gaussian", "diagonal", "shared"])
def test_it_is_the_rank_of_the_matrix(num_groups, rank, projection):
    for u in (1, 2, 3, 4, 5, 9, 13, 16, 40):
        config = AdapterConfig(u=u, rank=rank, num_groups=num_groups, projection=projection)
        groups = groups_of(MODULES, config)
        assert degrees_of_freedom(groups, config) == measured(groups, config), u


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("num_groups", [1, 3, None])
def test_of_unit_matrices_too(num_groups, rank):
    config = AdapterConfig(u=rank**2, rank=rank, num_groups=num_groups, projection="identity")
    groups = groups_of(MODULES, config)
    assert degrees_of_freedom(groups, config) == measured(groups, config) == rank**2 * len(groups)


def test_at_rank_1_it_depends_on_the_signs():
    """Two modules share two numbers: one degree of freedom where their signs go together."""
    found = set()
    for seed in range(20):
        config = AdapterConfig(u=2, rank=1, num_groups=4, seed=seed)
        groups = groups_of(MODULES, config)
        found.add(degrees_of_freedom(groups, config))
        assert degrees_of_freedom(groups, config) == measured(groups, config)
    assert found == {4, 5, 6, 7, 8}


def test_very_many_numbers_take_no_time():
    config = AdapterConfig(u=10**9, rank=1, num_groups=1)
    assert degrees_of_freedom([MODULES], config) == 8
    assert degrees_of_freedom([MODULES], config.model_copy(update={"rank": 2})) == 32


def test_the_paper_s_thirteen_numbers_and_thirteen_tied_ones_are_said_apart():
    modules = [f"layers.{i}.{kind}" for i in range(28) for kind in "qkvogud"]
    said = {
        (1, 13, None): "13 numbers: u = 1 in 13 groups of 15 or 16 modules; 13 degrees of freedom",
        (1, None, 16): "13 numbers: u = 1 in 13 groups of 16 modules, the last of 4; 13 degrees of "
        "freedom",
        (13, 1, None): "13 numbers: u = 13 tied over all 196 modules; 13 degrees of freedom",
        (16, None, None): "3136 numbers: u = 16 in 196 groups of 1 module; 784 degrees of freedom",
        (1, None, 14): "14 numbers: u = 1 in 14 groups of 14 modules; 14 degrees of freedom",
        (1, 1, None): "1 number: u = 1 tied over all 196 modules; 1 degree of freedom",
    }
    for (u, num_groups, n_tie), sentence in said.items():
        config = AdapterConfig(u=u, num_groups=num_groups, n_tie=n_tie)
        assert described(groups_of(modules, config), config) == sentence


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"u": 4}, ""),
        ({"u": 16, "num_groups": None}, "rank^2 = 4 elements: 128 numbers reach 32 degrees of"),
        ({"u": 13, "num_groups": 1}, "elements: the modules of a group cannot vary independently"),
        ({"u": 2, "rank": 1, "num_groups": None}, "rank^2 = 1 elements: 16 numbers reach 8 degre"),
        ({"u": 5, "projection": "shared", "num_groups": 1}, "5 numbers reach 4 degrees of freedom"),
        (
            {"u": 32, "projection": "diagonal", "num_groups": 1},
            "rank = 2 elements: 32 numbers reach",
        ),
    ],
)
def test_numbers_beyond_a_core_are_warned_of(settings, sentence):
    config = AdapterConfig(**settings)
    warning = surplus(groups_of(MODULES, config), config)
    assert sentence in warning
    assert bool(warning) == bool(sentence)


def test_an_adapter_says_how_many_it_has():
    assert attach(model_of(), config_of(u=5, num_groups=None)).degrees_of_freedom == 14 * 4
    assert attach(model_of(), config_of(u=5, num_groups=1)).degrees_of_freedom == 5


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"u": 3, "num_groups": 4}, "12 numbers, 12 degrees of freedom"),
        ({"u": 5, "num_groups": 4}, "20 numbers, at most 20 degrees of freedom"),
        ({"u": 5, "num_groups": 4, "projection": "shared"}, "20 numbers, 16 degrees of freedom"),
        ({"u": 4, "num_groups": None, "projection": "identity"}, "56 numbers, 56 degrees of freed"),
    ],
)
def test_a_file_says_what_it_knows(settings, said, tmp_path):
    attach(model_of(), config_of(**settings)).save(tmp_path / "a.safetensors")
    contents = files.read(tmp_path / "a.safetensors")
    assert described_file(contents).startswith(said)
    assert described_file(replace(contents, v=contents.v.half())).startswith(said)
