"""On a real GPU: `pytest -m gpu`. The checks are those of `benchmarks/first_hour.py`."""

import importlib.util
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]


def first_hour() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "first_hour.py"
    spec = importlib.util.spec_from_file_location("first_hour", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FIRST_HOUR = first_hour()


@pytest.mark.parametrize("check", FIRST_HOUR.CHECKS, ids=lambda check: check.__name__)
def test_the_first_hour(check: object, tmp_path: Path) -> None:
    options = Namespace(model="pocket", task="pocket", device="cuda:0")
    wrong = [row for row in check(tmp_path, options) if row.is_so is False]  # type: ignore[operator]
    assert not wrong


def test_each_rank_has_its_own_card() -> None:
    from tinylora.models import place_of

    assert place_of("auto").index is not None
