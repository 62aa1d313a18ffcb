"""Ask a policy a task's problems, grade the answers, and say what they add up to."""
