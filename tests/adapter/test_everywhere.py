"""The same numbers are the same adapter: in any precision, process, order, or build of LAPACK."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import scipy.linalg
import torch
from safetensors.torch import load_file, save_file
from test_svd import decaying, matrix
from torch import Tensor

from helpers.tiny import config_of, model_of, values_like
from tinylora.adapter import attach, load, svd
from tinylora.adapter.files import read
from tinylora.models import load_model

ENDS = {"krylov": svd._krylov, "full": lambda T, rank: None}


@pytest.fixture(autouse=True)
def _no_cache(own_cache, monkeypatch):
    """Factors are computed every time."""
    monkeypatch.setenv("TINYLORA_CACHE", "off")


@pytest.fixture(scope="module")
def pocket():
    return load_model("pocket", device="cpu").model


def deltas(model, **settings):
    """Every module's W' - W under fixed numbers; the model is left bare."""
    adapter = attach(model, config_of(**{"u": 13, "num_groups": 1, **settings}))
    adapter.set_values(values_like(adapter.v))
    names = [name for group in adapter.modules_by_group for name in group]
    found = {name: adapter.delta_weight(name).double() for name in names}
    adapter.detach()
    return found


def assert_same(found, expected):
    """To 1e-5 of the largest element."""
    assert found
    for name, delta in found.items():
        error = float((delta - expected[name]).abs().max() / expected[name].abs().max())
        assert error <= 1e-5, name


@pytest.mark.parametrize("end", ENDS)
def test_weights_in_fp32_and_fp64_give_the_same_update(pocket, end, monkeypatch):
    monkeypatch.setattr(svd, "_krylov", ENDS[end])
    expected = deltas(pocket)
    assert_same(deltas(pocket.double()), expected)
    pocket.float()


class OtherLapack:
    """SciPy's own LAPACK with other drivers: gesvd for gesdd, QR iteration for eigenvalues."""

    def __init__(self):
        self.calls = set()

    def svd(self, A: Tensor, full_matrices: bool = True):
        self.calls.add("svd")
        parts = scipy.linalg.svd(A.numpy(), full_matrices=full_matrices, lapack_driver="gesvd")
        return tuple(map(torch.from_numpy, parts))

    def eigh(self, A: Tensor, UPLO: str = "L"):
        self.calls.add("eigh")
        parts = scipy.linalg.eigh(A.numpy(), lower=UPLO == "L", driver="ev")
        return tuple(map(torch.from_numpy, parts))

    def qr(self, A: Tensor):
        self.calls.add("qr")
        Q, R = scipy.linalg.qr(A.numpy(), mode="economic", pivoting=False)
        return torch.from_numpy(-Q), torch.from_numpy(-R)  # a sign is any driver's choice


@pytest.mark.parametrize(("end", "used"), [("krylov", {"eigh", "qr"}), ("full", {"svd", "qr"})])
def test_another_lapack_with_other_drivers_gives_the_same_update(pocket, end, used, monkeypatch):
    monkeypatch.setattr(svd, "_krylov", ENDS[end])
    expected, other = deltas(pocket), OtherLapack()
    for name in ("svd", "eigh", "qr"):
        monkeypatch.setattr(torch.linalg, name, getattr(other, name))
    assert_same(deltas(pocket), expected)
    assert used <= other.calls


def test_a_model_that_creates_its_modules_in_another_order_gives_the_same_update():
    expected, shuffled = deltas(model_of(), num_groups=4), model_of()
    for module in shuffled.modules():
        if not isinstance(module, torch.nn.ModuleList):
            module._modules = dict(reversed(module._modules.items()))
    names = [name for name, _ in shuffled.named_modules()]
    assert names.index("lm_head") < names.index("model.layers.0.mlp.down_proj")
    assert_same(deltas(shuffled, num_groups=4), expected)


def test_a_subset_of_the_targets_gives_the_same_update(pocket):
    expected = deltas(pocket)
    found = deltas(pocket, targets=("down_proj", "q_proj"), layers="1-2")
    assert len(found) == 4
    assert_same(found, expected)


@pytest.mark.parametrize("second", [3.0, 3.0 * (1 - 0.5e-4)])
def test_near_equal_values_that_are_kept_give_the_same_update_whatever_the_rounding(second):
    """The vectors of such a pair turn with the rounding; their canonical position does not."""
    W = matrix(32, 32, [3.0, second, 1.0, 0.5])
    rounded = W + 1e-7 * matrix(32, 32, [1.0] * 32, seed=9)
    first, other = (torch.linalg.svd(weight)[0][:, 0] for weight in (W, rounded))
    assert float(first @ other) ** 2 < 1 - 1e-9  # by an angle of more than 3e-5
    found = []
    for weight in (W, rounded):
        model = model_of(dtype=torch.float64)
        model.model.layers[0].self_attn.q_proj.weight.data.copy_(weight)
        found.append(deltas(model, targets=("q_proj",)))
    assert_same(*found)


def test_a_module_without_a_defined_edge_is_listed_in_the_file_and_left_out_again(tmp_path):
    model, name = model_of(), "model.layers.1.mlp.up_proj"
    W = matrix(48, 32, [3.0, 2.0, 2.0 * (1 - 0.5e-4), 1.0])
    model.get_submodule(name).weight.data.copy_(W)
    with pytest.warns(UserWarning, match=f"1 of 14 modules are left out, .*: {name}"):
        adapter = attach(model, config_of())
    adapter.save(tmp_path / "a.safetensors")
    adapter.detach()
    assert read(tmp_path / "a.safetensors").left_out == (name,)
    with pytest.warns(UserWarning, match="left out"):
        assert load(model, tmp_path / "a.safetensors").left_out == [name]


FRESH = """
import sys, torch
from safetensors.torch import load_file, save_file
from tinylora import load
from tinylora.adapter.svd import truncated_svd
from tinylora.models import load_model

assert torch.get_num_threads() == 2
folder, text = sys.argv[1:]
model = load_model("pocket", device="cpu").model
found = {}
for name, source in (("file", folder), ("text", text)):
    adapter = load(model, source)
    with torch.no_grad():
        found[name] = model(input_ids=torch.arange(24).view(2, 12)).logits
    adapter.detach()
factors = truncated_svd(load_file(f"{folder}/large.safetensors")["W"], 2)
found |= {name: getattr(factors, name).contiguous() for name in "USV"}
save_file(found, f"{folder}/found.safetensors")
"""


def test_a_fresh_process_with_two_threads_gives_the_same_logits_and_factors(pocket, tmp_path):
    adapter = attach(pocket, config_of(u=13, num_groups=1, targets=("o_proj", "down_proj")))
    adapter.set_values(values_like(adapter.v).bfloat16())
    adapter.save(tmp_path / "adapter.safetensors", "bf16")
    W = decaying(1100, 1000)  # large enough to be shared out, and for a rough start in fp32
    assert W.numel() > svd.LARGE
    save_file({"W": W}, tmp_path / "large.safetensors")
    with torch.no_grad():
        expected = pocket(input_ids=torch.arange(24).view(2, 12)).logits
        with adapter.disabled():
            base = pocket(input_ids=torch.arange(24).view(2, 12)).logits
    assert float((expected - base).abs().max()) > 0.1

    found = in_a_fresh_process(tmp_path, adapter.to_text())
    adapter.detach()
    for name in ("file", "text"):
        assert torch.allclose(found[name], expected, rtol=0, atol=1e-6)
    factors = svd.truncated_svd(W, 2)
    for name in "USV":
        assert torch.allclose(found[name], getattr(factors, name), rtol=0, atol=1e-6)


def in_a_fresh_process(folder: Path, text: str) -> dict[str, Tensor]:
    settings = {
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "passive",  # threads that spin are slow beside other tests
        "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
        "TINYLORA_CACHE": str(folder / "cache"),  # of the second load
    }
    command = [sys.executable, "-c", FRESH, str(folder), text]
    subprocess.run(command, env={**os.environ, **settings}, check=True)
    return load_file(folder / "found.safetensors")
