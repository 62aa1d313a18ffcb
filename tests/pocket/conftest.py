"""The scripts that made the model are a recipe, not part of the package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "pocket" / "model"))
