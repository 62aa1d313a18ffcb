"""One LoRA for each number: PEFT and llama.cpp add them up to the adapter, at any numbers."""

import ctypes
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch import Tensor

from helpers.exports import adapter_of, logits
from helpers.gguf_base import write_base
from helpers.tiny import config_of, model_of, tokens, values_like
from tinylora.adapter import TinyLora, attach
from tinylora.errors import RequestError
from tinylora.export import sliders, to_sliders

pytestmark = pytest.mark.filterwarnings(  # peft 0.21's
    "ignore:`is_gradient_checkpointing`:FutureWarning", "ignore:Adapter cat:UserWarning"
)


def index_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "sliders.json").read_text(encoding="utf-8"))


def in_peft(folder: Path, values: list[float], ids: Tensor, family: str = "qwen2") -> Tensor:
    """What stock PEFT says with the sliders at these values."""
    first, *rest = index_of(folder)
    model = peft.PeftModel.from_pretrained(
        model_of(family), str(folder / first["file"]), first["name"]
    )
    for slider in rest:
        model.load_adapter(str(folder / slider["file"]), slider["name"])
    names = [slider["name"] for slider in (first, *rest)]
    model.add_weighted_adapter(names, values, "mine", combination_type="cat")
    model.set_adapter("mine")
    return logits(model.eval(), ids)


@pytest.mark.parametrize("settings", [{}, {"num_groups": 1, "u": 5}])
def test_peft_adds_them_up_to_the_adapter_at_any_numbers(settings: dict, tmp_path: Path) -> None:
    adapter, ids = adapter_of(**settings), tokens()
    exported = to_sliders(adapter, tmp_path / "out")
    trained = [slider["value"] for slider in index_of(tmp_path / "out")]
    torch.testing.assert_close(torch.tensor(trained), adapter.v.detach().flatten())
    ours = logits(adapter.model, ids)
    assert torch.allclose(in_peft(tmp_path / "out", trained, ids), ours, rtol=0, atol=1e-5)
    adapter.set_values(-1.7 * adapter.v.detach().flip(1))
    other = adapter.v.detach().flatten().tolist()
    moved = logits(adapter.model, ids)
    assert torch.allclose(in_peft(tmp_path / "out", other, ids), moved, rtol=0, atol=1e-5)
    assert not torch.allclose(ours, moved, atol=0.1)
    assert "they answer as the adapter does" in exported.notes[0]


def test_a_slider_moves_the_layers_of_its_group_alone(tmp_path: Path) -> None:
    adapter = adapter_of()
    before = adapter.v.detach().clone()
    to_sliders(adapter, tmp_path / "out")
    assert torch.equal(adapter.v, before)
    entries = index_of(tmp_path / "out")
    assert [(s["group"], s["place"]) for s in entries] == [
        (g, i) for g in range(4) for i in range(3)
    ]
    for slider in entries:
        config = tmp_path / "out" / slider["file"] / "adapter_config.json"
        names = json.loads(config.read_text(encoding="utf-8"))["target_modules"]
        assert names == sorted(adapter.modules_by_group[slider["group"]])


def test_what_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliders, "MAX_SLIDERS", 11)
    with pytest.raises(RequestError, match=r"has 12 numbers.*at most 11.*--to lora"):
        to_sliders(adapter_of(), tmp_path / "out")
    monkeypatch.setattr(sliders, "MAX_SLIDERS", 12)
    with pytest.raises(RequestError, match=r'type "gpt2".*supported: apertus'):
        to_sliders(adapter_of("gpt2"), tmp_path / "out", "gguf")
    assert list(tmp_path.iterdir()) == []


def llama_with(base: Path, adapters: list[Path], scales: list[float], ids: list[int]) -> np.ndarray:
    """What llama.cpp says with the adapters at these scales."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="make test-engines builds llama.cpp")
    fp32 = llama_cpp.GGML_TYPE_F32
    with ExitStack() as stack:
        model = llama_cpp.Llama(
            str(base), n_ctx=256, n_threads=1, logits_all=True, type_k=fp32, type_v=fp32,
            use_mmap=False, verbose=False,
        )  # fmt: skip
        stack.callback(model.close)
        loaded = []
        for path in adapters:
            one = llama_cpp.llama_adapter_lora_init(model._model.model, str(path).encode())
            assert one is not None
            stack.callback(llama_cpp.llama_adapter_lora_free, one)
            loaded.append(one)
        pointers = (llama_cpp.llama_adapter_lora_p_ctypes * len(loaded))(*loaded)
        factors = (ctypes.c_float * len(scales))(*scales)
        status = llama_cpp.llama_set_adapters_lora(model._ctx.ctx, pointers, len(loaded), factors)
        assert status == 0
        model.eval(ids)
        return np.array(model.scores[: len(ids)])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_llama_cpp_adds_them_up_to_the_adapter(family: str, tmp_path: Path) -> None:
    """At the trained numbers, at others, and at zero, where it is the base model."""
    pytest.importorskip("llama_cpp", reason="make test-engines builds llama.cpp")
    model, ids = model_of(family), list(range(3, 30))
    write_base(model, tmp_path / "base.gguf")
    adapter = attach(model, config_of(family))
    adapter.set_values(values_like(adapter.v))
    to_sliders(adapter, tmp_path / "out", "gguf")
    files = [tmp_path / "out" / slider["file"] for slider in index_of(tmp_path / "out")]
    assert len(files) == adapter.num_trainable == 12
    for factor in (1.0, -2.0, 0.0):
        adapter.set_values(factor * values_like(adapter.v))
        theirs = llama_with(tmp_path / "base.gguf", files, numbers(adapter), ids)
        ours = logits(model, torch.tensor([ids]))[0].numpy()
        assert np.abs(theirs - ours).max() < 1e-4


def numbers(adapter: TinyLora) -> list[float]:
    return adapter.v.detach().flatten().tolist()
