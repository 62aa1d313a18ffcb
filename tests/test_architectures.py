"""Every architecture, through the commands: make test-models (some five minutes)."""

import re
from pathlib import Path

import pytest

from helpers.architectures import COLUMNS, EXPECTED, probe
from helpers.decoders import ALL

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("name", ALL)
def test_an_architecture_works_or_is_refused_with_the_right_cause(
    name: str, tmp_path: Path
) -> None:
    """No traceback; what is not `ok` is in EXPECTED, with a part of its sentence."""
    cells = probe(name, tmp_path).cells
    expected = EXPECTED.get(name, {})
    for column in COLUMNS:
        if column == "GGUF" and cells.get(column, "ok") != "ok":
            assert re.search("cannot write for llama.cpp|not have a separate tensor", cells[column])
        elif column in expected:
            assert expected[column] in cells[column], (column, cells[column])
        elif column in cells and column != "share":
            assert cells[column] == "ok", (column, cells[column])
    assert {*cells} == {*COLUMNS} or "training" in expected
