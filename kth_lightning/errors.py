"""The one error that people see."""


class InputError(Exception):
    """Say in one sentence what is wrong, in which file or flag, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """
