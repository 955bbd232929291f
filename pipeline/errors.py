"""The one exception that a user's mistake or bad data raises."""


class PipelineError(Exception):
    """What went wrong, where, and what to do about it, in one message for the user.

    The command line prints the message on one line and exits with code 1. Raise it where the
    problem is found: expected, got, where, remedy.
    """
