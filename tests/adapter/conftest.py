from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache of factors."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TINYLORA_CACHE", str(folder))
    return folder
