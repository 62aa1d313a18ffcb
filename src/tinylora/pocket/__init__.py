"""The model in the box: a small Qwen2 base model, its tokenizer and its task."""

from pathlib import Path


def model_folder() -> Path:
    """The packaged model, a folder as `save_pretrained` writes it."""
    return Path(__file__).parent / "model"
