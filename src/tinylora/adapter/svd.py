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
VECTOR_ERROR = 5e-6  # the angle by which a kept vector may be off
VALUE_ERROR = 1e-6  # the relative residual at which values and their gaps are believed
LARGE = 2**20  # elements from which on a rough start in fp32 pays
BLOCK = 16
MAX_BLOCKS = 40
WHOLE = 2**25  # elements up to which half-precision weights are converted once: 128 MiB
TINY = 1e-300
SLAB = 256  # rows of W that are converted at a time: they stay in the processor's cache


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
    """The leading (or middle) `rank` singular triplets of W, certified and canonical.

    A block Krylov method, from a rough start in fp32 to the end in float64. It stops by its
    residuals: the angle between a computed and the true vector is at most residual / gap
    (Davis-Kahan), and that is what has to be small. Where it does not get there, and for the
    middle of the spectrum, it is the full SVD in float64, which takes minutes for a large W.

    Args:
        W: (d_out, d_in), any floating dtype; products with it are in the method's precision.

    Raises:
        RequestError: rank exceeds min(d_out, d_in), or W is not finite.
    """
    if rank > min(W.shape):
        raise RequestError(
            f"rank = {rank}, but a weight of shape {tuple(W.shape)} has only {min(W.shape)} "
            "singular directions. Use a smaller rank, or leave such modules out of targets."
        )
    T = W if W.shape[0] >= W.shape[1] else W.mT  # tall: (m, n), m >= n
    if T.dtype.itemsize < 4 and T.numel() <= WHOLE:
        T = T.float()  # exact; else slabs are converted at each of some nine passes
    found = _krylov(T, rank) if subspace == "top" else None
    method = "full" if found is None else "krylov"
    left, values, right, edge_gap, residual = found or _full(T, rank, subspace)
    U, V = (left, right) if W.shape[0] >= W.shape[1] else (right, left)
    return _canonical(Factors(U.mT, values, V.mT, edge_gap, residual, method))


# Vectors are rows from here on: BLAS multiplies X T^T several times faster than T X.
Found = tuple[Tensor, Tensor, Tensor, float, float]  # left, values, right, edge gap, residual


def _krylov(T: Tensor, rank: int) -> Found | None:
    """The leading triplets by block Lanczos; None where it does not converge."""
    block = _start(T, min(max(BLOCK, rank + 4), T.shape[1]))
    for dtype in (torch.float32, torch.float64) if T.numel() >= LARGE else (torch.float64,):
        block = _lanczos(T, _orthonormal(block.to(dtype))[0], rank)
        left, squares, right, residuals = _rayleigh_ritz(T, block[: rank + 1])
        if _is_certain(squares, residuals, rank):
            values = squares.sqrt()
            residual = float((residuals / squares)[:rank].max())
            return left[:rank], values[:rank], right[:rank], _edge_gap(values, rank), residual
    return None


def _full(T: Tensor, rank: int, subspace: str) -> Found:
    _through(T, T.new_ones(1, T.shape[1], dtype=torch.float32))  # LAPACK does not like inf or nan
    _, values, right = torch.linalg.svd(T.double(), full_matrices=False)
    first = 0 if subspace == "top" else (len(values) - rank) // 2
    below = _edge_gap(values[first:], rank)
    above = 1.0 if first == 0 else _edge_gap(values[first - 1 :], 1)
    left, squares, right, residuals = _rayleigh_ritz(T, right[first : first + rank])
    residual = float((residuals / squares.clamp_min(TINY)).max())
    return left, squares.sqrt(), right, min(below, above), residual


def _through(T: Tensor, X: Tensor) -> tuple[Tensor, Tensor]:
    """X T^T and X T^T T in the dtype of X, reading T once and never converting all of it."""
    ahead, back = [], torch.zeros_like(X)
    for rows in torch.split(T, SLAB):
        slab = rows.to(X.dtype)
        ahead.append(X @ slab.mT)
        back.addmm_(ahead[-1], slab)
    if not bool(torch.isfinite(back).all()):
        raise RequestError("The weights hold inf or nan: their singular vectors do not exist.")
    return torch.cat(ahead, dim=1), back


def _rayleigh_ritz(T: Tensor, X: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best triplets within the rows of X, in float64 whatever X was computed in.

    Returns:
        left (k, m), squared values (k,), right (k, n), and ||T^T T y - square y|| of each (k,):
        divided by the square that is ||T^T u - s v|| / s, and T v = s u by construction.
    """
    X = _orthonormal(X.double())[0]  # (k, n)
    ahead, back = _through(T, X)  # X T^T (k, m) and X T^T T (k, n)
    squares, Y = torch.linalg.eigh(X @ back.mT)  # of T^T T within the rows of X: (k,), (k, k)
    squares, Y = squares.flip(0).clamp_min(0), Y.flip(1)  # descending; rounding can go below 0
    right = Y.mT @ X  # (k, n)
    residuals = torch.linalg.vector_norm(Y.mT @ back - squares[:, None] * right, dim=1)
    left: Tensor = Y.mT @ ahead / squares.sqrt().clamp_min(TINY)[:, None]
    return left, squares, right, residuals


def _lanczos(T: Tensor, block: Tensor, rank: int) -> Tensor:
    """Block Lanczos on T^T T, in the dtype of `block`, as far as it has to go or can go.

    Fully reorthogonalised: Q stays orthonormal, and H = Q T^T T Q^T is known from that alone.

    Returns:
        The leading Ritz vectors, as many as the block has.
    """
    width, n = block.shape
    max_blocks = min(MAX_BLOCKS, n // width)
    Q = block.new_empty(max_blocks * width, n)  # the basis, block under block
    H = block.new_zeros(max_blocks * width, max_blocks * width)  # upper triangle of Q T^T T Q^T
    for step in range(max_blocks):
        # k = (step + 1) width rows so far, of which `new` are the last block
        old, new = slice(0, (step + 1) * width), slice(step * width, (step + 1) * width)
        Q[new] = block
        _, image = _through(T, block)  # (width, n)
        H[old, new] = Q[old] @ image.mT  # (k, width)
        # What the basis does not hold of the image is the next block: rest = carry^T block.
        block, carry = _orthonormal(image - H[old, new].mT @ Q[old], Q[old])
        squares, Y = torch.linalg.eigh(H[old, old], UPLO="U")  # ascending: (k,), (k, k)
        squares, Y = squares.flip(0).clamp_min(0)[: rank + 1], Y.flip(1)[:, :width]
        # For a Ritz vector x = y^T Q, T^T T x - square x is that rest alone: its norm is known
        # without another product with T.
        residuals = torch.linalg.vector_norm(carry @ Y[new, : rank + 1], dim=0)  # (rank + 1,)
        # In fp32 the residuals stop falling at rounding; then float64 takes these vectors on.
        is_floor = float(residuals.max()) <= 2 * torch.finfo(H.dtype).eps * float(squares[0])
        if is_floor or _is_certain(squares, residuals, rank):
            break
    vectors: Tensor = Y.mT @ Q[old]  # (width, n)
    return vectors


def _orthonormal(X: Tensor, Q: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rows Z and a factor C, X = C^T Z; Z is orthogonal to Q even where X is only rounding."""
    Z, carry = torch.linalg.qr(X.mT)
    if Q is not None:
        Z, correction = torch.linalg.qr(Z - Q.mT @ (Q @ Z))
        carry = correction @ carry
    return Z.mT.contiguous(), carry


def _start(T: Tensor, width: int) -> Tensor:
    """Any block will do, but the same one every time."""
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(width, T.shape[1], generator=generator, dtype=torch.float64)
    return block.to(T.device)


def _is_certain(squares: Tensor, residuals: Tensor, rank: int) -> bool:
    """The kept vectors are right to VECTOR_ERROR, or certainly not defined by W.

    Args:
        squares, residuals: of the kept eigenpairs of T^T T and, where there is one, of the next.
    """
    relative = residuals / squares[rank - 1]
    if not float(relative.max()) <= VALUE_ERROR:
        return False
    gaps = 1 - squares[1:] / squares[:-1]
    near_equal = gaps < 2 * NEAR_EQUAL  # squares part twice as fast as the values
    is_undefined = bool(near_equal[rank - 1 :].any())
    narrowest = min(gaps[~near_equal].tolist(), default=1.0)
    return is_undefined or float(relative[:rank].max()) <= VECTOR_ERROR * narrowest


def _edge_gap(values: Tensor, rank: int) -> float:
    """(s_r - s_(r+1)) / s_r; 1 where nothing follows, 0 where s_r is zero."""
    last = float(values[rank - 1])
    following = float(values[rank]) if len(values) > rank else 0.0
    is_zero = last <= 1e-7 * float(values[0])
    return 0.0 if is_zero else (last - following) / last


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
