"""Where the real data lies that tests read and the repository does not hold."""

from pathlib import Path

import pytest

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"there is no folder {DATA}")
