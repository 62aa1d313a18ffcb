"""Every setting, its range and its default; where a recipe, the flags and Python meet."""
