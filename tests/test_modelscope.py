"""Models by their ModelScope id, from a stand-in for ModelScope's library."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from tinylora import RequestError
from tinylora.models import load_model


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    asked: list[str] = []

    def snapshot_download(model_id: str) -> str:
        asked.append(model_id)
        if model_id != "maker/tiny":
            raise ValueError(f"The model {model_id} does not exist.\nRequest id: 7.")
        return str(folder)

    module = ModuleType("modelscope")
    module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modelscope", module)
    return asked


def test_a_model_comes_from_modelscope(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    asked = stand_in(monkeypatch, tiny_folder)
    base = load_model("modelscope:maker/tiny")
    assert base.name == "modelscope:maker/tiny"
    assert set(asked) == {"maker/tiny"}
    with pytest.raises(RequestError, match=r"ModelScope did not provide no/such \(The model no/s"):
        load_model("modelscope:no/such")


def test_without_the_library_the_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(RequestError, match=r"needs ModelScope's library .*Install "):
        load_model("modelscope:maker/tiny")
