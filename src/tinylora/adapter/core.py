"""TinyLoRA's equations as pure functions (arXiv 2602.04118, section 3), and nothing else.

    W' = W + U S R V^T,   R = sum_i v_i P_i

Legend
    W  (d_out, d_in)   the frozen weight of one linear map
    U  (d_out, r), S (r,), V (d_in, r)   its truncated SVD: W V = U S
    P  (u, r, r)       fixed random matrices, another set for every module, ||P_i||_F = 1
    v  (u,)            the only trained numbers; zero at the start
    R  (r, r)          the core: the one thing that training changes
    A = V^T (r, d_in), B = U S (d_out, r)   the frozen outer factors, so that W' = W + B R A

Departures from the paper
    1. `scale=False` drops S from B (one source text writes U R V^T).
    2. Identity P with u = r^2 makes R free: that is LoRA-XS (arXiv 2405.17604).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def outer_factors(U: Tensor, S: Tensor, V: Tensor, *, scale: bool = True) -> tuple[Tensor, Tensor]:
    """A = V^T (r, d_in) and B = U S (d_out, r), or B = U without `scale`.

    B is laid out by columns: a gradient is multiplied with it several times faster.
    """
    assert U.shape[1] == V.shape[1] == S.shape[0], (U.shape, S.shape, V.shape)
    B = U * S if scale else U
    return V.mT.contiguous(), B.mT.contiguous().mT


def mix(v: Tensor, P: Tensor) -> Tensor:
    """R = sum_i v_i P_i: (..., u) and (u, r, r) give (..., r, r)."""
    assert v.shape[-1] == P.shape[0], (v.shape, P.shape)
    R = v @ P.flatten(1)  # (..., r * r)
    return R.view(*v.shape[:-1], *P.shape[1:])


def add_update(output: Tensor, x: Tensor, A: Tensor, R: Tensor, B: Tensor) -> Tensor:
    """W' x = W x + B R A x, from output = W x (..., d_out) and x (..., d_in).

    R is (r, r), or (batch, r, r) when every row of the batch has a core of its own. The two outer
    products run in the dtype of A and B, that of the layer, with the accumulation of its own
    matrix product; the core in between keeps the dtype of v, so that v is never rounded.
    """
    assert (output.shape[-1], x.shape[-1]) == (B.shape[0], A.shape[1]), (output.shape, x.shape)
    h = F.linear(x, A)  # (..., r)
    h = (h.to(R.dtype) @ R.mT).to(B.dtype)  # (..., r)
    rows = torch.addmm(output.reshape(-1, B.shape[0]), h.reshape(-1, B.shape[1]), B.mT)
    return rows.view(output.shape)  # output + h B^T, in one pass over the output


def add_product(output: Tensor, x: Tensor, A: Tensor, M: Tensor) -> Tensor:
    """The same from M = B R (d_out, r), which is known where nothing asks for a gradient.

    Two products in place of four operations and a mix. M has the dtype of A: its rounding is of the
    size of the update's own, far below that of the output it is added to.
    """
    h = F.linear(x, A)  # (..., r)
    rows = torch.addmm(output.reshape(-1, M.shape[0]), h.reshape(-1, M.shape[1]), M.mT)
    return rows.view(output.shape)


def delta_weight(A: Tensor, R: Tensor, B: Tensor) -> Tensor:
    """W' - W = B R A, (d_out, d_in)."""
    return (B @ R) @ A


def delta_norm(S: Tensor, R: Tensor) -> Tensor:
    """||U S R V^T||_F = ||S R||_F, because U and V are orthonormal."""
    return (S.unsqueeze(-1) * R).square().sum().sqrt()


def unit_projections(r: int) -> Tensor:
    """P_i = E_jk, the r^2 unit matrices in row order: R is then v itself, as in LoRA-XS."""
    return torch.eye(r * r, dtype=torch.float64).view(-1, r, r)
