"""The equations, with numbers computed by hand."""

import pytest
import torch

from tinylora.adapter import core


def test_outer_factors_take_s_into_b_and_scale_false_leaves_it_out():
    U, V = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), torch.eye(2)
    S = torch.tensor([3.0, 2.0])
    A, B = core.outer_factors(U, S, V)
    assert A.tolist() == [[1, 0], [0, 1]]
    assert B.tolist() == [[3, 0], [0, 2], [0, 0]]
    assert torch.equal(core.outer_factors(U, S, V, scale=False)[1], U)


def test_mix_is_the_weighted_sum_of_the_projections():
    P = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 5.0], [0.0, 1.0]]])
    assert core.mix(torch.tensor([2.0, 3.0]), P).tolist() == [[2, 15], [0, 3]]


def test_mix_gives_each_row_of_a_batch_its_own_core():
    P = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 5.0], [0.0, 1.0]]])
    assert core.mix(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), P).tolist() == P.tolist()


def test_add_update_is_b_r_a_x_added_to_the_output():
    A, B = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[2.0], [1.0]])
    R, x = torch.tensor([[10.0]]), torch.tensor([[1.0, 2.0, 9.0]])
    added = core.add_update(torch.tensor([[0.5, 0.5]]), x, A, R, B)
    assert added.tolist() == [[60.5, 30.5]]


def test_add_update_agrees_with_delta_weight_for_a_core_that_is_not_symmetric():
    generator = torch.Generator().manual_seed(0)
    A, R, B, x = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((2, 5), (2, 2), (4, 2), (3, 6, 5))
    )
    expected = x @ core.delta_weight(A, R, B).mT
    assert torch.allclose(core.add_update(torch.zeros(3, 6, 4).double(), x, A, R, B), expected)


def test_delta_norm_is_the_frobenius_norm_of_the_update():
    generator = torch.Generator().manual_seed(0)
    U = torch.linalg.qr(torch.randn(7, 2, generator=generator))[0]
    V = torch.linalg.qr(torch.randn(5, 2, generator=generator))[0]
    S, R = torch.tensor([3.0, 1.0]), torch.randn(2, 2, generator=generator)
    A, B = core.outer_factors(U, S, V)
    assert float(core.delta_norm(S, R)) == pytest.approx(float(core.delta_weight(A, R, B).norm()))


def test_unit_projections_make_the_core_v_itself():
    v = torch.arange(4, dtype=torch.float64)
    assert core.mix(v, core.unit_projections(2)).tolist() == [[0, 1], [2, 3]]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(AssertionError, match="3"):
        core.mix(torch.ones(3), torch.ones(2, 2, 2))
