"""The exceptions that a command answers with a line instead of a traceback."""


class BadInput(ValueError):
    """Something the user gave cannot be used; exit status 2.

    The message is one line that names what was received, what is allowed and the way out.
    """


class Failed(RuntimeError):
    """The input is good and the work did not succeed; exit status 1. The message is one line."""


class Stopped(Exception):
    """The work was asked to stop and can go on; exit status 0. The message, one line, says how."""
