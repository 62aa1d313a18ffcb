"""Learning: `grpo.py` is the paper's loop; its parts are `losses.py` (arithmetic), `batching.py`
(log-probabilities), `checkpoint.py` and `metrics.py`."""
