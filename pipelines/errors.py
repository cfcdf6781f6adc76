"""The one exception that a command answers with a line instead of a traceback."""


class BadInput(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names what was received, what is allowed and the way out.
    """
