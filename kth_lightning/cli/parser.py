"""The parser of flags and configs, which answers a mistake in one sentence."""

import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from kth_lightning.cli.config_file import check_configs
from kth_lightning.errors import InputError
from kth_lightning.io.class_path import import_part

_HOLLOW = ("Does not validate", "Subtypes:", "Errors:", "Given value type", "Expected a <class 'NoneType'>")


class Parser(LightningArgumentParser):
    """Parse as Lightning's does, with short usage lines and `InputError` instead of a page of usage."""

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

    def instantiate_classes(self, *args: Any, **settings: Any) -> Namespace:
        """Make the objects that are configured, and let through what stopped one, which is wrapped into pages.

        Raises:
            InputError: A source or an augmentation cannot be made, or says itself what is wrong.
        """
        try:
            return super().instantiate_classes(*args, **settings)
        except ValueError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, InputError | MemoryError | RuntimeError):
                cause = cause.__cause__ or cause.__context__
            part = re.search(r"(Source|Augmentation)'>.*value: Namespace\(class_path='([^']+)'", str(error), re.DOTALL)
            if part is None or isinstance(cause, InputError | MemoryError):
                raise cause or error from None
            reason = " ".join(str(error.__cause__).split())[:300]
            raise InputError(f"--data.{part[1].lower()} {part[2]} cannot be made like this: {reason}") from None

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what was wrong.

        Raises:
            InputError: Always.
        """
        raise InputError(self._sentence(message)) from None

    def _sentence(self, message: str) -> str:
        # A class path's settings have a parser of their own, whose sentence comes here again inside another message.
        key = found[1] if (found := re.match(r'Parser key "([^"]+)"', message)) else ""
        if found := re.search(r"Option '([^']+)' is not accepted|has no setting '([^']+)'", message):
            name = found[1] or found[2]
            owner = f"the class of --{key}" if key.startswith("data.") else "the model"
            return f"{owner} has no setting {name!r}; --print_config behind the command shows all of them"
        if key.startswith("data.") and (found := re.search(r"arguments are required: ([\w, ]+)", message)):
            flags = ", ".join(f"--{key}.init_args.{name.strip()}" for name in found[1].split(","))
            return f"--{key}: its class needs more settings: {flags}"
        if found := re.search(r"Import path (\S+) does not correspond to a subclass of (\w+)", message):
            return f"--{key} {found[1]} is no {found[2]}, a class that kth_lightning has or that has its methods"
        if found := re.search(r"class_path '([^']+)':\s+(?:No module named|module '[^']+' has no)", message):
            import_part(found[1], f"--{key}")  # which says more
        if found := re.search(r"(?:does not accept option|[Uu]nrecognized arguments:) '?(?:--)?([^'\s=]+)", message):
            near = get_close_matches(found[1], self._flags(), n=1)
            hint = f"did you mean --{near[0]}?" if near else "--help lists all of them"
            return f"there is no setting --{found[1]}, on the command line or in a config file; {hint}"
        if "fit.model" in message:
            return "a model is missing; give a recipe, such as --config configs/head.yaml"
        lines = [line.strip(" -") for line in message.splitlines()]
        telling = " ".join(line for line in lines if line and not line.startswith(_HOLLOW))
        telling = re.sub(r'Parser key "([^"]+)"([^:]*):', r"--\1\2:", telling)
        telling = re.sub(r"^--(model|data\.\w+): (\w+):", r"--\1.\2:", telling)
        telling = re.sub(r" ?Given value: NestedArg\(.*\)$", "", telling)
        telling = re.sub(r"(Expected a <class '\w+'>) Expected a ", r"\1 or a ", telling).replace(
            " Given value:", "; given was"
        )
        telling = re.sub(r"typing\.Literal\[([^\]]+)\]", r"one of \1", telling).replace("a one of", "one of")
        return re.sub(r"<class '([^']+)'>", r"\1", telling)[:400]

    def _flags(self) -> list[str]:
        choices = getattr(self._subcommands_action, "choices", {})
        return [action.dest for parser in (self, *choices.values()) for action in parser._actions]
