"""Learning: `grpo.py` is the paper's loop, `losses.py` its arithmetic, `loop.py` runs its steps."""
