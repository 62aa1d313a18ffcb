"""From a completion to a verdict; `verdict.py` has the one type that all graders return."""
