"""The cache of factors: same numbers, fewer seconds, and never in the way."""

import pytest
import torch
from test_svd import decaying

from tinylora.adapter import cache
from tinylora.adapter.cache import cached_svd
from tinylora.folders import cache_folder

W = decaying(30, 20).float()


def files(folder):
    return sorted(folder.rglob("*.safetensors"))


def same(one, other):
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in "USV")


def forbid_computing(monkeypatch):
    monkeypatch.setattr(cache, "truncated_svd", lambda *_: pytest.fail("computed again"))


def test_the_second_time_factors_come_from_disk_bit_for_bit(own_cache, monkeypatch):
    first = cached_svd(W, 2)
    forbid_computing(monkeypatch)
    second = cached_svd(W, 2)
    assert len(files(own_cache)) == 1
    assert same(first, second)
    assert (first.edge_gap, first.residual, first.method) == (
        second.edge_gap,
        second.residual,
        second.method,
    )


@pytest.mark.parametrize("change", ["weight", "rank", "subspace", "dtype"])
def test_anything_that_changes_the_factors_changes_the_key(own_cache, change):
    cached_svd(W, 2)
    other = W.clone()
    other[3, 4] += 1e-6
    request = {
        "weight": (other, 2, "top"),
        "rank": (W, 3, "top"),
        "subspace": (W, 2, "middle"),
        "dtype": (W.bfloat16(), 2, "top"),
    }[change]
    cached_svd(*request)
    assert len(files(own_cache)) == 2


def test_a_transposed_weight_is_another_weight(own_cache):
    square = decaying(20, 20).float()
    assert torch.allclose(cached_svd(square, 2).V, cached_svd(square.mT, 2).U.abs() * 0, atol=2)
    assert len(files(own_cache)) == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_file_is_computed_again_and_mended(own_cache, damage, monkeypatch):
    first = cached_svd(W, 2)
    (path,) = files(own_cache)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes({"cut": data[:-40], "flip": data, "empty": b""}[damage])
    assert same(cached_svd(W, 2), first)
    forbid_computing(monkeypatch)
    assert same(cached_svd(W, 2), first)


@pytest.mark.parametrize("word", ["off", "0", "", "OFF"])
def test_the_cache_can_be_turned_off(own_cache, monkeypatch, word):
    monkeypatch.setenv("TINYLORA_CACHE", word)
    assert cache_folder() is None
    cached_svd(W, 2)
    assert not own_cache.exists()


def test_without_the_variable_the_cache_is_where_caches_are(tmp_path, monkeypatch):
    monkeypatch.delenv("TINYLORA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tinylora"


def test_a_folder_that_cannot_be_written_is_a_warning_not_an_end(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TINYLORA_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="computed again next time"):
        assert cached_svd(W, 2).is_defined
