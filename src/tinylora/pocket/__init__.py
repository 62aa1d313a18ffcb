"""The model in the box: a small Qwen2 base model, its tokenizer and its task."""

from pathlib import Path


def model_folder() -> Path:
    """The packaged model, a folder as `save_pretrained` writes it."""
    return Path(__file__).parent / "model"


def is_pocket(name: str) -> bool:
    """Whether a name or a path is the packaged model's."""
    return name == "pocket" or Path(name).expanduser().resolve() == model_folder().resolve()
