"""Programs judged by running their tests in a sandbox: `judge` is the face of the room."""

from tinylora.rewards.code.judging import Limits, Test, judge, judge_many

__all__ = ["Limits", "Test", "judge", "judge_many"]
