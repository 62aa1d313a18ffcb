"""Engines that sample completions; `engine.py` has what they share, `transformers.py` the first."""
