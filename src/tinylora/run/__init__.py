"""A whole run: what it needs (`prepare.py`), its folder, its course (`training.py`), its report."""
