"""The two ways in which a request can end badly; the command line turns them into exit statuses.

A message says what happened with the value, why it matters, and how to mend it.
"""


class TinyLoraError(Exception):
    """It failed while running."""

    exit_status = 1


class RequestError(TinyLoraError, ValueError):
    """The request is wrong: a setting, a name, a file. Nothing was computed."""

    exit_status = 2
