"""The parser of flags and configs, which answers a mistake in one sentence."""

import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from kth_lightning.cli.config_file import check_configs
from kth_lightning.cli.sentences import sentence_of
from kth_lightning.errors import InputError


class Parser(ArgumentParser):
    """Parse as jsonargparse's does, with short usage lines and `InputError` instead of a page of usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.usage = f"{self.prog} [flags]"

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *others: Any, **settings: Any
    ) -> Namespace:
        """Parse, after a look at the configuration files.

        Raises:
            InputError: A word or a file cannot be used.
        """
        check_configs(sys.argv[1:] if args is None else args)
        return super().parse_args(args, *others, **settings)

    def instantiate(self, *args: Any, **settings: Any) -> Namespace:
        """Make the objects that are configured, and let through what stopped one, which is wrapped into pages.

        Raises:
            InputError: A source or an augmentation cannot be made, or says itself what is wrong.
        """
        try:
            return super().instantiate(*args, **settings)
        except ValueError as error:
            cause = _cause(error)
            if isinstance(cause, InputError | MemoryError):
                raise cause from None
            reason = " ".join(str(cause).split())[:300]
            part = re.search(r"(Source|Augmentation)'>.*value: Namespace\(class_path='([^']+)'", str(error), re.DOTALL)
            if part is not None:
                raise InputError(
                    f"--data.{part[1].lower()} {part[2]} cannot be created with these settings: {reason}"
                ) from None
            if isinstance(cause, RuntimeError):
                raise cause from None
            *_, frame = traceback.extract_tb(cause.__traceback__)
            raise InputError(
                f"{frame.filename}:{frame.lineno} fails ({type(cause).__name__}: {reason}); correct it"
            ) from None

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what was wrong.

        Raises:
            InputError: Always.
        """
        raise InputError(sentence_of(message, self._flags())) from None

    def _flags(self) -> list[str]:
        # Neither jsonargparse nor argparse has a public list of flags; tests/test_private_names.py watches the names.
        choices = getattr(self._subcommands_action, "choices", {})
        return [action.dest for parser in (self, *choices.values()) for action in parser._actions]


def _cause(error: BaseException) -> BaseException:
    """Return what an error came from, as far as the first that says itself what is wrong."""
    deeper = error.__cause__ or error.__context__
    return error if deeper is None or isinstance(error, InputError | MemoryError | RuntimeError) else _cause(deeper)
