"""The truncated SVD against numpy-free facts: LAPACK's SVD, its certificate, its canonical form."""

import pytest
import torch
from torch import Tensor

from tinylora.adapter import svd
from tinylora.adapter.stream import keyed_signs
from tinylora.adapter.svd import truncated_svd
from tinylora.errors import RequestError


def matrix(d_out: int, d_in: int, values: list[float], seed: int = 0) -> Tensor:
    """A float64 matrix with these singular values and no others."""
    generator = torch.Generator().manual_seed(seed)
    U, V = (
        torch.linalg.qr(torch.randn(size, len(values), generator=generator, dtype=torch.float64))[0]
        for size in (d_out, d_in)
    )
    return (U * torch.tensor(values, dtype=torch.float64)) @ V.mT


def decaying(d_out: int, d_in: int) -> Tensor:
    return matrix(d_out, d_in, [k**-0.3 for k in range(1, min(d_out, d_in) + 1)])


def product(factors: svd.Factors) -> Tensor:
    return (factors.U * factors.S) @ factors.V.mT


def best_approximation(W: Tensor, rank: int) -> Tensor:
    U, S, Vh = torch.linalg.svd(W.double(), full_matrices=False)
    return (U[:, :rank] * S[:rank]) @ Vh[:rank]


@pytest.mark.parametrize(
    ("shape", "rank"),
    [((90, 60), 2), ((60, 90), 2), ((300, 280), 5), ((2, 50), 2), ((50, 1), 1), ((50, 40), 40)],
)
def test_it_is_the_best_approximation_of_its_rank(shape, rank):
    W = decaying(*shape)
    assert torch.allclose(
        product(truncated_svd(W, rank)), best_approximation(W, rank), rtol=0, atol=1e-7
    )


def test_the_krylov_method_finds_what_it_is_for_and_certifies_it():
    W = decaying(400, 300)
    factors = truncated_svd(W, 2)
    assert factors.method == "krylov"
    residual = (W @ factors.V - factors.U * factors.S).norm(dim=0) / factors.S
    back = (W.mT @ factors.U - factors.V * factors.S).norm(dim=0) / factors.S
    assert max(residual.max(), back.max()) <= 1.01 * factors.residual
    assert factors.residual < 1e-7
    assert factors.edge_gap == pytest.approx(1 - (3 / 2) ** -0.3)


def test_leading_values_within_one_percent_of_each_other_converge_too():
    close = [1 - 0.01 * k / 20 for k in range(20)] + [0.5] * 200
    W = matrix(400, 300, close)
    factors = truncated_svd(W, 2)
    assert factors.method == "krylov"
    assert torch.allclose(product(factors), best_approximation(W, 2), rtol=0, atol=1e-7)


def test_a_rough_start_in_fp32_ends_where_float64_alone_does(monkeypatch):
    W = decaying(300, 250).bfloat16()
    alone = truncated_svd(W, 2)
    monkeypatch.setattr(svd, "LARGE", 0)
    after_rough = truncated_svd(W, 2)
    assert torch.allclose(product(alone), product(after_rough), rtol=0, atol=1e-6)
    assert after_rough.residual < 1e-6


def test_what_does_not_converge_falls_back_to_the_full_svd(monkeypatch):
    monkeypatch.setattr(svd, "MAX_BLOCKS", 1)
    W = decaying(120, 100)
    factors = truncated_svd(W, 2)
    assert factors.method == "full"
    assert torch.allclose(product(factors), best_approximation(W, 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_factors_in_two_precisions_of_the_same_weights_are_the_same(dtype):
    W = decaying(150, 120).to(dtype)
    one, other = truncated_svd(W, 2), truncated_svd(W.double(), 2)
    assert torch.equal(one.U, other.U)
    assert torch.equal(one.V, other.V)


def test_krylov_and_lapack_give_the_same_vectors_signs_included(monkeypatch):
    W = decaying(200, 150)
    krylov = truncated_svd(W, 3)
    monkeypatch.setattr(svd, "_krylov", lambda T, rank: None)
    full = truncated_svd(W, 3)
    assert (krylov.method, full.method) == ("krylov", "full")
    assert torch.allclose(krylov.U, full.U, rtol=0, atol=1e-7)
    assert torch.allclose(krylov.V, full.V, rtol=0, atol=1e-7)


def test_the_sign_rule_makes_v_point_along_its_reference_vector():
    factors = truncated_svd(decaying(40, 30), 3)
    G = torch.from_numpy(keyed_signs("tinylora/reference", 30, 3))
    assert all(float(factors.V[:, i] @ G[:, i]) > 0 for i in range(3))


def test_equal_kept_values_are_rotated_into_one_position_whatever_the_basis():
    W = matrix(40, 30, [2.0, 2.0, 1.0, 0.5])
    perturbed = W + 1e-9 * matrix(40, 30, [1.0] * 30, seed=3)
    one, other = truncated_svd(W, 2), truncated_svd(perturbed, 2)
    G = torch.from_numpy(keyed_signs("tinylora/reference", 30, 2))
    triangle = one.V.mT @ G
    assert abs(float(triangle[1, 0])) < 1e-9
    assert (triangle.diagonal() > 0).all()
    assert torch.allclose(one.U, other.U, rtol=0, atol=1e-7)
    assert torch.allclose(one.V, other.V, rtol=0, atol=1e-7)
    assert torch.allclose(product(one), best_approximation(W, 2), rtol=0, atol=1e-7)


def test_near_equal_kept_values_share_their_mean_and_others_do_not():
    near, apart = 2.0 * (1 - 0.5e-4), 2.0 * (1 - 2e-4)
    mean = (2.0 + near) / 2
    assert truncated_svd(matrix(40, 30, [2.0, near, 1.0]), 2).S.tolist() == pytest.approx(
        [mean, mean], rel=1e-9
    )
    assert truncated_svd(matrix(40, 30, [2.0, apart, 1.0]), 2).S.tolist() == pytest.approx(
        [2.0, apart], rel=1e-9
    )


@pytest.mark.parametrize(
    ("values", "is_defined"),
    [
        ([3.0, 2.0, 2.0 * (1 - 0.5e-4), 1.0], False),
        ([3.0, 2.0, 2.0 * (1 - 2e-4), 1.0], True),
        ([3.0, 2.0, 2.0, 2.0], False),
        ([3.0, 2.0, 0.0], True),
        ([3.0, 0.0, 0.0], False),
    ],
)
def test_vectors_are_undefined_where_the_edge_falls_between_near_equal_values(values, is_defined):
    assert truncated_svd(matrix(50, 40, values), 2).is_defined is is_defined


def test_the_middle_of_the_spectrum_is_its_middle():
    W = matrix(9, 8, [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    factors = truncated_svd(W, 2, "middle")
    assert factors.S.tolist() == pytest.approx([5.0, 4.0])
    assert factors.edge_gap == pytest.approx(1 / 6)


def test_the_edge_above_the_middle_counts_as_well():
    W = matrix(9, 8, [8.0, 7.0, 5.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    assert not truncated_svd(W, 2, "middle").is_defined


def test_a_rank_beyond_the_matrix_is_refused():
    with pytest.raises(RequestError, match=r"rank = 3, but a weight of shape \(2, 50\)"):
        truncated_svd(torch.ones(2, 50), 3)


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(RequestError, match="inf or nan"):
        truncated_svd(torch.full((4, 4), float("nan")), 2)
