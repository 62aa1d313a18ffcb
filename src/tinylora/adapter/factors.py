"""The frozen factors of each module: U, S, V from its weights, P from its name.

Any machine rebuilds the same ones: the SVD is certified and canonical (`svd.py`), and kept on disk
by the hash of the weights (`cache.py`); P, and a random basis, come from a keyed stream
(`stream.py`). A module whose weights do not define the kept directions says so (`is_defined`), and
is left out by `attach`.
"""

import numpy as np
import torch
from torch import Tensor

from tinylora.adapter import core
from tinylora.adapter.cache import cached_svd, cached_svd_of_layer
from tinylora.adapter.modules import LinearMap
from tinylora.adapter.stream import keyed_normals
from tinylora.adapter.svd import Factors
from tinylora.settings import AdapterConfig


def linear_factors(linear: LinearMap, config: AdapterConfig) -> Factors:
    """The factors of one linear layer of a model as the settings ask for them."""
    if linear.is_plain:
        return module_factors(linear.weight(), linear.name, config)
    factors = cached_svd_of_layer(linear, config.rank, config.subspace)
    return _in_basis(factors, linear.name, config)


def module_factors(W: Tensor, name: str, config: AdapterConfig) -> Factors:
    """The same from its weight; `name` keys the random basis."""
    if W.is_meta:
        return _without_weights(W, config.rank)
    return _in_basis(cached_svd(W, config.rank, config.subspace), name, config)


def projections(name: str, config: AdapterConfig) -> Tensor:
    """P (u, r, r) in float64: ||P_i||_F = 1, keyed by (seed, module name), for ever the same bits.

    P_i does not depend on u: more numbers add matrices to those that were there.
    """
    u, r = config.u, config.rank
    if config.projection == "identity":
        return core.unit_projections(r)
    if config.projection == "diagonal":
        return torch.diag_embed(_unit_rows(f"tinylora/diagonal P/{config.seed}/{name}", u, r))
    key = "all modules" if config.projection == "shared" else name
    return _unit_rows(f"tinylora/P/{config.seed}/{key}", u, r * r).view(u, r, r)


def _unit_rows(key: str, num_rows: int, size: int) -> Tensor:
    """Random directions: normals of the keyed stream, each row with norm 1. (num_rows, size)"""
    normals = keyed_normals(key, num_rows * size).reshape(num_rows, size)
    norms = np.sqrt((normals * normals).sum(axis=1, keepdims=True).astype(np.float64))
    return torch.from_numpy(normals / norms)


def _in_basis(factors: Factors, name: str, config: AdapterConfig) -> Factors:
    return factors if config.basis == "svd" else _with_random_basis(factors, name, config.seed)


def _without_weights(W: Tensor, rank: int) -> Factors:
    """Shapes alone, for a model on the meta device."""
    U, V = (W.new_empty(size, rank, dtype=torch.float64) for size in W.shape)
    return Factors(U, V.new_empty(rank), V, 1.0, 0.0, "none")


def _with_random_basis(factors: Factors, name: str, seed: int) -> Factors:
    """Orthonormal columns from the keyed stream; S stays that of W. Always defined."""
    U = _random_columns(f"tinylora/U/{seed}/{name}", factors.U)
    V = _random_columns(f"tinylora/V/{seed}/{name}", factors.V)
    return Factors(U, factors.S, V, 1.0, factors.residual, factors.method)


def _random_columns(key: str, like: Tensor) -> Tensor:
    normals = keyed_normals(key, like.numel()).astype(np.float64)
    columns, triangle = torch.linalg.qr(torch.from_numpy(normals).reshape(like.shape))
    signs = torch.where(triangle.diagonal() < 0, -1.0, 1.0)
    return torch.mul(columns, signs).to(like)
