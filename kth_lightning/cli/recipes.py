"""Recipes: those that come with the package, by their names, and a user's own files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

import kth_lightning
from kth_lightning.cli.config_file import check_configs
from kth_lightning.errors import InputError
from kth_lightning.io.terminal import print_rank_zero
from kth_lightning.report.registry import MODELS

_TAKEN = re.compile(r"(seed|fold)-\d+|replaced|figures")
"""Names that a folder of `compare` uses otherwise."""

DEFAULT = "best"
"""Name of the recipe for one's own images."""


@dataclass(frozen=True)
class Recipe:
    """Hold what a recipe says of its model and its images.

    Attributes:
        name: Of its run folder.
        file: Where it stands.
        class_name: Of the model's class, without its module.
        settings: Of the model, as far as the recipe gives them.
        data: Of the images, likewise.
    """

    name: str
    file: Path
    class_name: str
    settings: dict[str, Any]
    data: dict[str, Any]

    @property
    def trunk(self) -> tuple[str, str, str] | None:
        """Name what the pretrained trunk is made of, of our own models that have one."""
        if self.class_name not in ("FeatureHead", "FineTuned"):
            return None
        defaults = {"backbone": "vgg19", "weights": "auto", "preprocessing": "backbone"}
        backbone, weights, preprocessing = (str(self.settings.get(key, own)) for key, own in defaults.items())
        return backbone, weights, preprocessing


def with_recipe(argv: Sequence[str]) -> list[str]:
    """Find the recipes that `--config` names in a command line of `fit`, and say where they are.

    A line that names neither a recipe nor a model gets the recipe for one's own images.

    Args:
        argv: The command, then its flags.
    """
    words = list(argv)
    for position, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag == "--config" and (equals or position + 1 < len(words)):
            name = value if equals else words[position + 1]
            if not Path(name).is_file() and (file := _shipped(name)):
                print_rank_zero(f"recipe: {name} ({file})")
                words[position : position + 2 - len(equals)] = [f"--config={file}"]
    if {word.partition("=")[0] for word in words} & {"--config", "-c", "-h", "--help", "--model", "--model.class_path"}:
        return words
    file = _folder() / f"{DEFAULT}.yaml"
    print_rank_zero(f"recipe: {DEFAULT} ({file}); --config FILE uses another")
    return [words[0], "--config", str(file), *words[1:]]


def find_recipes(words: Sequence[str], article: bool, small: bool) -> list[Recipe]:
    """Read the recipes that are asked for, the article's models first, as a table shows them.

    Args:
        words: Names, such as "head", and YAML files.
        article: Take names for the article's own recipes.
        small: Take names for the recipes that are sized for the drawn sample, where there are such.

    Raises:
        InputError: There is no such recipe, a file names no model, or two would write the same run folder.
    """
    recipes: dict[str, Recipe] = {}
    for word in words:
        file = _named(word, article, small)
        recipe = recipes.setdefault(file.stem, _read(file))
        if recipe.file != file:
            raise InputError(f"--models: {recipe.file} and {file} would write the same folder, {file.stem}; rename one")
        if _TAKEN.fullmatch(file.stem):
            raise InputError(f"--models {word}: a comparison's folder uses the name {file.stem}; rename the file")
    known = list(MODELS)
    order = {name: known.index(name) if name in known else len(known) for name in recipes}
    return sorted(recipes.values(), key=lambda recipe: (order[recipe.name], recipe.class_name == "FineTuned"))


def _named(word: str, article: bool, small: bool) -> Path:
    if Path(word).suffix in (".yaml", ".yml"):
        return Path(word) if Path(word).is_file() else _shipped(word) or Path(word)
    configs = _folder()
    names = sorted(file.stem for file in configs.glob("*.yaml") if "class_path" in file.read_text(encoding="utf-8"))
    if word not in names:
        near = get_close_matches(word, names, n=1)
        hint = f"did you mean {near[0]}?" if near else "give one, or a recipe's file, such as my/recipe.yaml"
        raise InputError(f"--models {word}: there is no recipe of this name, but {', '.join(names)}; {hint}")
    file = configs / ("blog" if article else "sample" if small else ".") / f"{word}.yaml"
    if article and not file.exists():
        raise InputError(f"--models {word}: the article has no such recipe; leave --recipe blog out")
    return file if file.exists() else configs / f"{word}.yaml"


def _shipped(name: str) -> Path | None:
    """Find a recipe that comes with the package, such as "head", "configs/head.yaml" or "blog/head"."""
    file = _folder() / Path(name.removeprefix("configs/")).with_suffix(".yaml")
    return file if file.is_relative_to(_folder()) and ".." not in file.parts and file.is_file() else None


def _folder() -> Path:
    package = Path(kth_lightning.__file__).parent
    # A wheel carries the recipes inside the package; in a checkout they stand beside it.
    return next(folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir())


def _read(file: Path) -> Recipe:
    if not file.is_file():
        raise InputError(f"--models {file}: there is no such file; give a recipe")
    check_configs(["--config", str(file)])
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    model = content.get("model")
    model = {"class_path": model} if isinstance(model, str) else model
    if not isinstance(model, dict) or not isinstance(model.get("class_path"), str):
        raise InputError(f"--models {file}: the file names no model; give it lines such as 'model: FeatureHead'")
    name = model["class_path"].rpartition(".")[2]
    return Recipe(file.stem, file, name, model.get("init_args") or {}, content.get("data") or {})
