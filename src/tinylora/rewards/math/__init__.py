"""Answers to mathematical problems: `grade` is the face of the room."""

from tinylora.rewards.math.grading import grade, grade_many

__all__ = ["grade", "grade_many"]
