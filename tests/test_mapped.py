"""A model that is looked at where it lies on the disk."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from tinylora.adapter.fingerprint import take
from tinylora.errors import RequestError
from tinylora.mapped import is_here, mapped_model
from tinylora.models import load_model


def same(name: str) -> bool:
    """The mapped model has the weights of the loaded one, the tied head among them."""
    mapped, loaded = mapped_model(name), load_model(name, device="cpu").model
    pairs = zip(mapped.named_parameters(), loaded.named_parameters(), strict=True)
    assert mapped.lm_head.weight is mapped.model.embed_tokens.weight
    return all(a == b and torch.equal(x.float(), y) for (a, x), (b, y) in pairs)


def test_a_mapped_model_has_the_weights_of_the_loaded_one(tiny_folder: Path) -> None:
    assert is_here(str(tiny_folder))
    assert is_here("pocket")
    assert same(str(tiny_folder))
    assert same("pocket")
    assert take(mapped_model("pocket")) == take(load_model("pocket", device="cpu").model)


def test_weights_in_several_files_are_found_by_their_index(
    tiny_folder: Path, tmp_path: Path
) -> None:
    LlamaForCausalLM.from_pretrained(tiny_folder).save_pretrained(tmp_path, max_shard_size="2KB")
    shutil.copy(tiny_folder / "tokenizer.json", tmp_path)
    shutil.copy(tiny_folder / "tokenizer_config.json", tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert same(str(tmp_path))
    next(tmp_path.glob("*.safetensors")).unlink()
    assert not is_here(str(tmp_path))
    with pytest.raises(RequestError):
        mapped_model(str(tmp_path))


def test_weights_under_other_names_are_left_to_transformers(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """As a base model without its head saves them: no `model.` before the names."""
    folder = shutil.copytree(tiny_folder, tmp_path / "bare")
    state = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    save_file(bare, folder / "model.safetensors", {"format": "pt"})
    assert same(str(folder))
