"""What a parser has to say, in one sentence."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from kth_lightning.io.class_path import import_part

_HOLLOW = (
    "Does not validate", "Subtypes:", "Errors:", "Given value type", "Expected a <class 'NoneType'>",
    "Expected a path but",
)  # fmt: skip

_KNOWN = {
    "model": ("kth_lightning.models", "", "Classifier"),
    "optimizer": ("torch.optim", "", "Optimizer"),
    "lr_scheduler": ("torch.optim.lr_scheduler", "", "LRScheduler"),
    "loss": ("torch.nn", "Loss", "Module"),
    "metrics": ("torchmetrics.classification", "Multiclass", "Metric"),
}
"""Flags that take class paths: where the classes are that one may mean, a part of their names, and their kind."""


def sentence_of(message: str, flags: Sequence[str]) -> str:
    """Say in a sentence what jsonargparse says on a page.

    A class path's settings have a parser of their own, whose sentence comes here again inside another message.

    Args:
        message: As the parser gives it.
        flags: All that the command takes, without their dashes.

    Raises:
        InputError: A class path cannot be imported, which says more than the message.
    """
    key = match[1] if (match := re.match(r'Parser key "([^"]+)"', message)) else ""
    inner = match[1] if (match := re.search(r"Given value: NestedArg\(key='([\w.]+)'", message)) else ""
    if match := re.search(r"^\s*- (?:the class of )?--([\w.]+)(.*)", message, re.MULTILINE):
        flag = f"--{key}.{inner if inner.endswith(match[1]) else match[1]}"
        whose = "the class of " if "- the class of --" in message else ""
        reason = match[2].replace(f"--{match[1]}.", f"{flag}.").replace(". Got value:", "; given was")
        return f"{whose}{flag}{reason}"[:400]
    if match := re.search(r"Option '([^']+)' is not accepted|has no setting '([^']+)'", message):
        name, owner = match[1] or match[2], ".".join(filter(None, (key, inner.rpartition(".")[0])))
        said = "the model" if owner in ("", "model") else f"the class of --{owner}"
        if said == "the model" and name in ("lr", "momentum", "weight_decay"):
            return f"the model has no setting {name!r}; did you mean --model.optimizer.{name}?"
        return f"{said} has no setting {name!r}; add --print_config to the command to see all"
    if key and (match := re.search(r"arguments are required: ([\w, ]+)", message)):
        missing = ", ".join(f"--{key}.init_args.{name.strip()}" for name in match[1].split(","))
        return f"--{key}: its class needs more settings: {missing}"
    if key and (said := _of_class_path(key, message)):
        return said
    if match := re.search(r"(?:does not accept option|[Uu]nrecognized arguments:) '?(?:--)?([^'\s=]+)", message):
        near = get_close_matches(match[1], flags, n=1)
        hint = f"did you mean --{near[0]}?" if near else "--help lists all of them"
        return f"there is no setting --{match[1]}, on the command line or in a config file; {hint}"
    if "fit.model" in message:
        return "a model is missing; give a recipe, such as --config configs/head.yaml"
    lines = [line.strip(" -") for line in message.splitlines()]
    telling = " ".join(line for line in lines if line and not line.startswith(_HOLLOW))
    telling = re.sub(r'Parser key "([^"]+)"([^:]*):', r"--\1\2:", telling)
    telling = re.sub(r" ?Given value: NestedArg\(.*\)$", "", telling)
    telling = re.sub(r"(Expected a <class '\w+'>) Expected a ", r"\1 or a ", telling)
    telling = re.sub(
        r" or a dot import path string: \S+?(?=;| |$)", "", telling.replace(" Given value:", "; given was")
    )
    telling = re.sub(r"typing\.Literal\[([^\]]+)\]", r"one of \1", telling).replace("a one of", "one of")
    return re.sub(r"<class '([^']+)'>", r"\1", telling)[:400]


def _of_class_path(key: str, message: str) -> str:
    """Say what is wrong with a class path; nothing where it is something else."""
    missing = r"(?:No module named|module '[^']+' has no)"
    if match := re.search(rf"class_path '([^']+)':\s+{missing}", message):
        import_part(match[1], f"--{key}")
    if match := re.search(
        rf"callable class: {missing}.*?(?:Got value: |given was |Given value: )([\w.]+)", message, re.S
    ):
        import_part(match[1], f"--{key}")
    if key.startswith("data.") and (
        match := re.search(r"path (\S+) does not correspond to a subclass of (\w+)", message)
    ):
        return f"--{key} {match[1]} is not a {match[2]}; give one of kth_lightning's, or a class with its methods"
    name = key.rpartition(".")[2]
    if name not in _KNOWN:
        return ""
    module, part, kind = _KNOWN[name]
    if match := re.search(r"Expected a dot import path string: (\S+)", message):
        names = vars(import_module(module)).items()
        known = [item for item, named in names if isinstance(named, type) and part in item]
        near = get_close_matches(match[1], [*known, "Cosine"] if name == "lr_scheduler" else known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "give its import path, such as mine.MyClass"
        return f"--{key} {match[1]}: there is no class of this name; {hint}"
    wrong = r"Import path (?:\S+ )?does not correspond to a subclass of|to be a subclass of <class"
    if re.search(wrong, message):
        given = re.search(
            r"Import path (?!does)(\S+) does|Expected a path but (\S+)|Expected '(\S+)' to be|Given value: (\S+)",
            message,
        )
        path = next((item for item in given.groups() if item), "") if given else ""
        return f"--{key} {path}: this is not a subclass of {kind}; give one"
    if name == "metrics" and "Expected a <class 'dict'>" in message:
        return f"--{key}: give names and classes, such as '{{f1: torchmetrics.classification.MulticlassF1Score}}'"
    return ""
