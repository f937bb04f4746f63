"""The command line."""

import sys

from kth_lightning.errors import InputError


def main(args: list[str] | None = None) -> None:
    """Run a command.

    Exit status: 0 done, 2 bad input, 130 interrupted.

    Args:
        args: The words behind `python -m kth_lightning`; those of the process where left out.
    """
    words = sys.argv[1:] if args is None else args
    try:
        from kth_lightning.training.run import train

        train(words)
    except InputError as error:
        sys.exit(f"error: {error}")
