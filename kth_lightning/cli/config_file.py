"""Configuration files: looked at before they are parsed, to say by name what is wrong with one."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from kth_lightning.errors import InputError

_MAX_NODES = 100_000  # aliases of aliases make billions of a few lines


def check_configs(argv: Sequence[str]) -> None:
    """Check the files that a command line names with --config, as far as there are such files.

    Raises:
        InputError: A file is no YAML text, nested or repeated beyond measure, or does not hold names and values.
    """
    for file in named_configs(argv):
        if file.is_file():
            _check(file)


def named_configs(argv: Sequence[str]) -> Iterator[Path]:
    """Yield the files that a command line names with --config."""
    for position, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        if flag == "--config":
            yield from map(Path, [value] if equals else argv[position + 1 : position + 2])


def _check(file: Path) -> None:
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), yaml.SafeLoader)
        sizes: dict[int, int] = {}
        too_large = root is not None and _size(root, sizes) > _MAX_NODES
    except UnicodeDecodeError:
        raise InputError(f"--config {file} is not UTF-8 text; give a YAML file") from None
    except RecursionError:
        raise InputError(
            f"--config {file} is nested too deeply or refers to itself; give plain names and values"
        ) from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).replace('in "<unicode string>", ', "in ").split())
        raise InputError(f"--config {file} is not valid YAML ({reason}); correct it") from None
    if too_large:
        raise InputError(f"--config {file} expands to more than {_MAX_NODES:,} values; give plain values")
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"--config {file} has no settings; give lines such as 'patience: 5'")
    for name, value in root.value:
        if name.value in ("data", "trainer") and not isinstance(value, yaml.MappingNode):
            raise InputError(
                f"--config {file}: {name.value} is {value.value!r}, and not a list of its settings; give lines such as "
                f"'{name.value}: {{setting: value}}', or leave it out"
            )
    for name, value in _described(root, ""):
        raise InputError(
            f"--config {file}: {name} was an object in Python ({value}), which a file cannot make again; repeat the "
            "run from Python, or give a class path in its place"
        )


def _described(node: yaml.Node, name: str) -> Iterator[tuple[str, str]]:
    """Yield the settings that stand in angle brackets, as `fit` from Python describes what has no other form."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _described(value, f"{name}.{key.value}".lstrip("."))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _described(value, name)
    elif re.fullmatch(r"<\w+(\.[\w<>]+)+(\(.*\))?>", node.value, re.DOTALL):
        yield name, node.value


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Count the values that a node has when its aliases are written out.

    Raises:
        yaml.YAMLError: A value has a zero byte in it, which no path can have, or names Python code.
    """
    if node.tag.startswith("tag:yaml.org,2002:python/"):
        raise yaml.YAMLError("a tag that names Python code")
    if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
        raise yaml.YAMLError("a zero byte in a value")
    if id(node) not in sizes:
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        nodes = [item for part in parts for item in (part if isinstance(part, tuple) else (part,))]
        sizes[id(node)] = 1 + sum(_size(item, sizes) for item in nodes)
    return sizes[id(node)]
