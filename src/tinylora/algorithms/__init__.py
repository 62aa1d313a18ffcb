"""Learning: `grpo.py` is the paper's loop; `losses.py` its arithmetic; `loop.py` is around every step."""
