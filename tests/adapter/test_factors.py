"""Projections and the random basis: keyed by (seed, module name), and by nothing else."""

import pytest
import torch
from test_svd import decaying

from tinylora.adapter.factors import module_factors, projections
from tinylora.settings import AdapterConfig

NAME = "model.layers.0.self_attn.q_proj"


def test_projections_have_norm_one():
    for rank in (1, 2, 8):
        P = projections(NAME, AdapterConfig(u=64, rank=rank))
        assert P.shape == (64, rank, rank)
        assert P.flatten(1).norm(dim=1).numpy() == pytest.approx(1, abs=1e-15)


def test_projections_are_the_same_numbers_for_ever():
    P = projections(NAME, AdapterConfig(u=2, rank=2))
    assert [x.hex() for x in P.flatten().tolist()] == FROZEN_P


def test_a_projection_does_not_depend_on_how_many_there_are():
    few, many = (projections(NAME, AdapterConfig(u=u)) for u in (3, 64))
    assert torch.equal(few, many[:3])


def test_projections_differ_by_module_and_by_seed():
    one = projections(NAME, AdapterConfig())
    assert not torch.equal(one, projections(NAME + "x", AdapterConfig()))
    assert not torch.equal(one, projections(NAME, AdapterConfig(seed=1)))


def test_thirteen_tied_numbers_reach_more_than_r_squared_directions():
    config = AdapterConfig(u=13)
    family = torch.cat([projections(f"m.{i}", config).flatten(1) for i in range(7)], dim=1)
    assert torch.linalg.matrix_rank(family) == 13


def test_identity_projections_are_the_unit_matrices():
    P = projections(NAME, AdapterConfig(u=4, projection="identity"))
    assert torch.equal(P.flatten(1), torch.eye(4, dtype=torch.float64))


def test_the_random_basis_is_orthonormal_keyed_and_keeps_the_singular_values():
    W, config = decaying(40, 30), AdapterConfig(basis="random")
    factors = module_factors(W, NAME, config)
    eye = torch.eye(2, dtype=torch.float64)
    assert torch.allclose(factors.U.mT @ factors.U, eye)
    assert torch.allclose(factors.V.mT @ factors.V, eye)
    assert factors.S.tolist() == pytest.approx([1.0, 2**-0.3])
    assert factors.V[:2].flatten().tolist() == pytest.approx(FROZEN_V, abs=1e-11)
    assert not torch.equal(factors.V, module_factors(W, NAME + "x", config).V)


def test_the_random_basis_is_defined_where_the_weights_have_no_directions():
    W = torch.eye(20)
    assert not module_factors(W, NAME, AdapterConfig()).is_defined
    assert module_factors(W, NAME, AdapterConfig(basis="random")).is_defined


FROZEN_P = [
    "0x1.079084b871ae5p-1",
    "0x1.afcb60ae474e6p-1",
    "0x1.3b7e1d5a7e944p-3",
    "0x1.9b47019a2fb81p-8",
    "-0x1.78e932d91c0bep-4",
    "0x1.c1550da4d90b6p-2",
    "0x1.bc230dbb4f2c3p-2",
    "0x1.902b32227a1f7p-1",
]
FROZEN_DIAGONAL = ["0x1.47ec6a91ccdf0p-1", "0x1.6dd75cd131745p-1", "-0x1.203d0a8a4ddc0p-2"]
FROZEN_V = [-0.273771806472, 0.158849741505, 0.027922486425, 0.067636813071]


def test_a_diagonal_projection_moves_the_singular_values_alone() -> None:
    config = AdapterConfig(u=64, rank=3, projection="diagonal")
    P = projections(NAME, config)
    assert P.shape == (64, 3, 3)
    assert torch.equal(P, torch.diag_embed(P.diagonal(dim1=1, dim2=2)))
    torch.testing.assert_close(P.norm(dim=(1, 2)), torch.ones(64, dtype=torch.float64))
    assert not torch.equal(P, projections(NAME + "x", config))
    assert P[:1].flatten()[::4].tolist() == [float.fromhex(x) for x in FROZEN_DIAGONAL]


def test_a_shared_projection_is_the_same_for_every_module() -> None:
    one, other = (projections(n, AdapterConfig(projection="shared")) for n in ("a", "b"))
    own, another = (projections(n, AdapterConfig()) for n in ("a", "b"))
    assert torch.equal(one, other)
    assert not torch.equal(own, another)
    assert not torch.equal(one, own)
