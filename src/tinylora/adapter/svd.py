"""Truncated SVD that any machine repeats: certified, and canonical where an SVD leaves a choice.

The rule: kept vectors whose singular values agree to `NEAR_EQUAL` form a cluster (most are alone);
each cluster's V is rotated, and U with it, until V^T G is upper triangular with a positive
diagonal, G being keyed vectors of +1 and -1. For a vector alone that is its sign: v . g > 0. A
cluster shares the mean of its singular values. Where the edge of the kept block falls inside a
cluster, W does not define the vectors, and `is_defined` is False.

This does **not** find small singular values well: it works on W^T W, for the leading ones.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tinylora.adapter.stream import keyed_signs
from tinylora.errors import RequestError

NEAR_EQUAL = 1e-4  # relative gap between singular values that counts as none
VECTOR_ERROR = 1e-7  # the angle by which a kept vector may be off
VALUE_ERROR = 1e-7  # the relative residual at which a near-equal edge is believed
BLOCK = 16
MAX_BLOCKS = 40


@dataclass(frozen=True)
class Factors:
    """U (d_out, r), S (r,), V (d_in, r) in float64, and how far they can be trusted."""

    U: Tensor
    S: Tensor
    V: Tensor
    edge_gap: float  # (s_r - s_(r+1)) / s_r: how far the kept block stands from the rest
    residual: float  # max over the kept of ||W^T u - s v|| / s and ||W v - s u|| / s
    method: str  # "krylov" or "full"

    @property
    def is_defined(self) -> bool:
        return self.edge_gap >= NEAR_EQUAL


def truncated_svd(W: Tensor, rank: int, subspace: str = "top") -> Factors:
    """The leading (or middle) `rank` singular triplets of W, canonical.

    A block Krylov method in float64, stopped by its residuals: the angle between a computed and
    the true vector is at most residual / gap (Davis-Kahan), and that is what has to be small.
    Where it does not get there, and for the middle of the spectrum, the full SVD in float64.

    Args:
        W: (d_out, d_in), any floating dtype; it is read as it is and computed with in float64.

    Raises:
        RequestError: rank exceeds min(d_out, d_in), or W is not finite.
    """
    _check(W, rank)
    T = (W if W.shape[0] >= W.shape[1] else W.mT).to(torch.float64)  # tall: (m, n), m >= n
    pairs = _krylov_pairs(T, rank) if subspace == "top" else None
    method = "full" if pairs is None else "krylov"
    left, values, right, edge_gap = pairs or _full_pairs(T, rank, subspace)
    U, V = (left, right) if W.shape[0] >= W.shape[1] else (right, left)
    residual = _residual(T, left, values, right)
    return _canonical(Factors(U, values, V, edge_gap, residual, method))


def _check(W: Tensor, rank: int) -> None:
    if rank > min(W.shape):
        raise RequestError(
            f"rank = {rank}, but a weight of shape {tuple(W.shape)} has only {min(W.shape)} "
            "singular directions. Use a smaller rank, or leave such modules out of targets."
        )
    if not bool(torch.isfinite(W).all()):
        raise RequestError("The weights hold inf or nan: their singular vectors do not exist.")


Pairs = tuple[Tensor, Tensor, Tensor, float]  # left (m, r), values (r,), right (n, r), edge gap


def _krylov_pairs(T: Tensor, rank: int) -> Pairs | None:
    """Block Lanczos on T^T T with full reorthogonalisation; None where it does not converge."""
    n = T.shape[1]
    width = min(max(BLOCK, rank + 4), n)
    max_blocks = min(MAX_BLOCKS, n // width)
    Q = T.new_empty(n, max_blocks * width)
    H = T.new_zeros(max_blocks * width, max_blocks * width)  # Q^T T^T T Q
    block = _start(T, width)
    for step in range(max_blocks):
        old, new = slice(0, (step + 1) * width), slice(step * width, (step + 1) * width)
        Q[:, new] = block
        image = T.mT @ (T @ block)
        H[old, new] = Q[:, old].mT @ image
        block, carry = _orthonormal(image - Q[:, old] @ H[old, new], Q[:, old])
        squares, Y = torch.linalg.eigh(H[old, old], UPLO="U")
        squares, Y = squares.flip(0).clamp_min(0), Y.flip(1)[:, : rank + 1]
        residuals = torch.linalg.vector_norm(carry @ Y[new], dim=0)  # of T^T T y = square y
        gap = _edge_gap(squares.sqrt(), rank)
        if _is_certain(squares[: rank + 1], residuals, rank):
            right = Q[:, old] @ Y[:, :rank]
            values = squares[:rank].sqrt()
            return (T @ right) / values, values, right, gap
    return None


def _orthonormal(X: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """QR of X, its first factor orthogonal to Q even where X is nothing but rounding."""
    once, carry = torch.linalg.qr(X)
    twice, correction = torch.linalg.qr(once - Q @ (Q.mT @ once))
    return twice, correction @ carry


def _start(T: Tensor, width: int) -> Tensor:
    """Any block will do, but the same one every time."""
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(T.shape[1], width, generator=generator, dtype=T.dtype)
    start: Tensor = torch.linalg.qr(block.to(T.device))[0]
    return start


def _is_certain(squares: Tensor, residuals: Tensor, rank: int) -> bool:
    """The kept vectors are right to VECTOR_ERROR, or certainly not defined by W.

    Args:
        squares, residuals: of the kept eigenpairs of T^T T and, where there is one, of the next.
    """
    relative = residuals / squares[:rank].min()
    gaps = 1 - squares[1:] / squares[:-1]
    near_equal = gaps < 2 * NEAR_EQUAL  # squares part twice as fast as the values
    if bool(near_equal[rank - 1 :].any()):
        return float(relative.max()) <= VALUE_ERROR
    narrowest = float(gaps[~near_equal].min()) if len(gaps[~near_equal]) else 1.0
    return float(relative.max()) <= VALUE_ERROR and float(relative[:rank].max()) <= (
        VECTOR_ERROR * narrowest
    )


def _full_pairs(T: Tensor, rank: int, subspace: str) -> Pairs:
    left, values, right = torch.linalg.svd(T, full_matrices=False)
    first = 0 if subspace == "top" else (len(values) - rank) // 2
    kept = slice(first, first + rank)
    below = _edge_gap(values[first:], rank)
    above = 1.0 if first == 0 else _edge_gap(values[first - 1 :], 1)
    return left[:, kept], values[kept], right.mT[:, kept], min(below, above)


def _edge_gap(values: Tensor, rank: int) -> float:
    """(s_r - s_(r+1)) / s_r; 1 where nothing follows, 0 where s_r is zero."""
    last = float(values[rank - 1])
    following = float(values[rank]) if len(values) > rank else 0.0
    is_zero = last <= torch.finfo(values.dtype).eps * len(values) * float(values[0])
    return 0.0 if is_zero else (last - following) / last


def _residual(T: Tensor, left: Tensor, values: Tensor, right: Tensor) -> float:
    ahead = torch.linalg.vector_norm(T @ right - left * values, dim=0)
    back = torch.linalg.vector_norm(T.mT @ left - right * values, dim=0)
    return float((torch.maximum(ahead, back) / values).max())


def _canonical(factors: Factors) -> Factors:
    """Settle signs and rotations by the rule at the top of this file."""
    U, S, V = factors.U.clone(), factors.S.clone(), factors.V.clone()
    d_in, rank = V.shape
    G = torch.from_numpy(keyed_signs("tinylora/reference", d_in, rank)).to(V)
    start = 0
    for stop in range(1, rank + 1):
        if stop < rank and 1 - S[stop] / S[stop - 1] < NEAR_EQUAL:
            continue
        kept = slice(start, stop)
        turn, triangle = torch.linalg.qr(V[:, kept].mT @ G[:, kept])
        turn = turn * torch.where(triangle.diagonal() < 0, -1.0, 1.0)
        U[:, kept], V[:, kept], S[kept] = U[:, kept] @ turn, V[:, kept] @ turn, S[kept].mean()
        start = stop
    return Factors(U, S, V, factors.edge_gap, factors.residual, factors.method)
