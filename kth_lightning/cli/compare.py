"""Train models on one split, test them on the same images, and set them side by side."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import yaml
from jsonargparse import Namespace

import kth_lightning
from kth_lightning.cli.compare_split import Planned, begun_runs, settle_split
from kth_lightning.cli.fit import train
from kth_lightning.cli.outcome import print_outcome
from kth_lightning.cli.parser import Parser
from kth_lightning.cli.recipes import DEFAULT, Recipe, find_recipes
from kth_lightning.cli.run_name import default_run_dir, runs_alike, settings_hash
from kth_lightning.cli.same_run import find_difference, make_images
from kth_lightning.data.module import ImageData
from kth_lightning.data.sources.choose import source_name
from kth_lightning.data.sources.sample import ATTRIBUTION
from kth_lightning.drawing.attempt import attempt
from kth_lightning.errors import InputError
from kth_lightning.io.flat_settings import flat_settings
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.run_lock import locked
from kth_lightning.io.suspects_file import TABLE as SUSPECTS
from kth_lightning.io.terminal import is_first_process, print_rank_zero
from kth_lightning.models.weights import find_weights
from kth_lightning.report.page import write_report
from kth_lightning.report.random_split import FOLDER, write_random_split
from kth_lightning.report.registry import MODELS
from kth_lightning.report.suspects import write_suspect_labels
from kth_lightning.report.table import Part, figures, write_table

_TRAINER_FLAGS = {
    "accelerator", "strategy", "devices", "num_nodes", "precision", "max_epochs", "deterministic",
    "limit_train_batches", "limit_val_batches", "limit_test_batches",
}  # fmt: skip


def compare(argv: list[str]) -> None:
    """Carry out `compare`.

    Each part is a `fit` command of its own into a run folder of its own, so what is finished is not trained again.

    Args:
        argv: The command line behind `compare`.

    Raises:
        InputError: A setting, the data or the weights cannot be used.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    source = source_name(vars(options.data))
    options.models = options.models or _default_models(source, options.recipe)
    settings = _settings_of(parser, options)
    folder = Path(options.run_dir) if options.run_dir else _default_folder(settings, options.data)
    recipes = find_recipes(options.models, options.recipe == "blog", source == "sample")
    _check_weights(recipes)
    if options.also_random_split:
        _require_groups(options.data)
    with locked(folder):
        parts = _compare(argv, options, settings, recipes, folder)
        if options.also_random_split:
            print("\nThe same on a random split, which knows no groups:\n")
            _compare([*argv, "--data.ignore_groups", "true"], options, settings, recipes, folder / FOLDER)
            print("\n" + "\n".join(write_random_split(folder, [figures(part, reference=False) for part in parts])))
    if source == "sample":
        print(f"\n{ATTRIBUTION}")
    with attempt("the report is not written"):
        print(f"\nThe report, to look at in a browser: {write_report(folder)}")
    print(f"The table is in {folder / 'table.md'}, every run beside it; to look inside: tensorboard --logdir {folder}")


def _compare(
    argv: list[str], options: Namespace, settings: dict[str, Any], recipes: list[Recipe], folder: Path
) -> list[Part]:
    planned, data = [], None
    for part, flags in _parts(options, folder):
        typed = [
            _typed([*argv, *flags], groups) for groups in (("--data.", "--trainer.", "--seed_every"), ("--data.",))
        ]
        for recipe in recipes:
            planned.append((recipe, Planned(RunFolder(part / recipe.name), recipe.file, *typed)))
    if is_first_process():
        begun = RunFolder(folder).read_start()
        data = settle_split(folder, [item for _, item in planned], options.retrain)
        if not begun:
            program = f"kth_lightning {kth_lightning.__version__}"
            RunFolder(folder).write_start({"program": program, "settings": settings_hash(settings, paths=False)})
    for recipe, item in sorted(planned, key=lambda pair: pair[0].name != DEFAULT):
        args = ["fit", "--config", str(item.recipe), *item.flags, "--run_dir", str(item.run.path)]
        args += ["--store_maps_before", str(cut)] if (cut := _shared_cut(recipe, recipes)) else []
        if head := _head_of(recipe, recipes):
            beginning = RunFolder(item.run.path.with_name(head.name)).best_checkpoint
            args += ["--model.init_args.init_head_from", str(beginning)]
        _fit(args, options)
        if recipe.name == DEFAULT and len(planned) == len(recipes) > 1:  # that of one fold is not the answer
            print_outcome(item.run)
    runs = [Part(recipe.name, [item.run for other, item in planned if other is recipe]) for recipe in recipes]
    print(write_table(runs, folder, reference=source_name(vars(options.data)) == "kth"))
    if options.folds and data:
        with attempt(f"{folder / SUSPECTS} is not written"):
            print(f"\n{write_suspect_labels(runs[0], data, folder).sentence}")
    return runs


def _require_groups(data: Namespace) -> None:
    """Refuse to compare with a random split where every split is one.

    Raises:
        InputError: The images have no groups.
    """
    if not any(image.group for image in make_images(data).prepared.catalogue.images):
        raise InputError(
            "--also_random_split: the images have no groups, so every split is random; give --data.group_by, or a "
            "table with a column group"
        )


def _default_models(source: str, recipe: str) -> list[str]:
    """Name the article's models, and the best one where the images are neither the article's nor the sample."""
    return list(MODELS) if source in ("kth", "sample") or recipe == "blog" else [DEFAULT, *MODELS]


def _parser() -> Parser:
    parser = Parser(
        prog="python -m kth_lightning compare",
        description="Train several models on the same images, test them on the same test images, and compare them; on "
        "drawn animals if no images are given.",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        type=str,
        default=None,
        help="Recipes, by name (best, head, finetune, benchmark) or YAML file. By default the article's three models "
        "(head, finetune, benchmark), and best before them where the images are your own.",
    )
    parser.add_argument(
        "--recipe",
        type=Literal["default", "blog"],
        default="default",
        help="Settings to train with: the improved ones, or the article's (blog).",
    )
    parser.add_argument(
        "--folds",
        type=int | None,
        default=None,
        help="Number of folds of a cross-validation, in which every image is tested once.",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        help="How many times every model is trained, each time with another random seed.",
    )
    parser.add_argument(
        "--retrain",
        type=bool,
        default=False,
        help="Train again what was trained on other images or another split than this command's; the old runs are "
        "kept in replaced/.",
    )
    parser.add_argument(
        "--also_random_split",
        type=bool,
        default=False,
        help="Train and test everything once more on a split that knows no groups, and say by how much that flatters.",
    )
    parser.add_argument("--run_dir", type=str | None, default=None, help="Output folder; a folder in runs/ by default.")
    parser.add_class_arguments(ImageData, "data", skip={"num_folds", "fold", "seed"}, instantiate=False)
    others = set(inspect.signature(L.Trainer.__init__).parameters) - _TRAINER_FLAGS - {"self"}
    parser.add_class_arguments(L.Trainer, "trainer", skip=set(others), instantiate=False)
    return parser


def _settings_of(parser: Parser, options: Namespace) -> dict[str, Any]:
    settings = yaml.safe_load(parser.dump(options, skip_unset=False))
    for name in ("run_dir", "retrain", "also_random_split", "config"):
        settings.pop(name, None)
    return flat_settings(settings)


def _default_folder(settings: dict[str, Any], data: Namespace) -> Path:
    folder = default_run_dir("compare", settings)
    if not folder.exists():
        for other in runs_alike("compare", settings):
            parts = begun_runs(other.path)
            if parts and not find_difference(parts[0], data):
                print_rank_zero(f"{other.path} began with these settings and these images, which lay elsewhere")
                return other.path
    return folder


def _typed(argv: list[str], prefixes: tuple[str, ...]) -> list[str]:
    """Keep the flags that begin so, as they were typed: what is not typed is the recipe's."""
    groups: list[list[str]] = []
    for word in argv:
        if word.startswith("--") or not groups:
            groups.append([])
        groups[-1].append(word)
    return [word for group in groups if group[0].startswith(prefixes) for word in group]


def _parts(options: Namespace, folder: Path) -> list[tuple[Path, list[str]]]:
    if options.seeds < 1 or (options.folds is not None and options.folds < 2):
        raise InputError("--seeds is at least 1 and --folds at least 2")
    parts: list[tuple[Path, list[str]]] = []
    for seed in range(options.seeds):
        for fold in range(options.folds or 1):
            part, flags = folder, ["--seed_everything", str(seed)]
            if options.seeds > 1:
                part /= f"seed-{seed}"
            if options.folds:
                part /= f"fold-{fold}"
                flags += ["--data.num_folds", str(options.folds), "--data.fold", str(fold)]
            parts.append((part, flags))
    return parts


def _check_weights(recipes: list[Recipe]) -> None:
    """Find out before any training whether the pretrained models can be trained."""
    for recipe in recipes:
        if recipe.trunk:
            find_weights(recipe.trunk[1], recipe.trunk[0])


def _head_of(tuned: Recipe, recipes: list[Recipe]) -> Recipe | None:
    """Return the head that a fine-tuned network starts from: the comparison's on the same trunk."""
    if tuned.class_name != "FineTuned" or "init_head_from" in tuned.settings:
        return None
    heads = (recipe for recipe in recipes if recipe.class_name == "FeatureHead" and recipe.trunk == tuned.trunk)
    return next(heads, None)


def _shared_cut(head: Recipe, recipes: list[Recipe]) -> int:
    """Return before how many of its last stages a head's trunk gives what fine-tuning begins with; 0 for nowhere."""
    tuned = next((recipe for recipe in recipes if _head_of(recipe, recipes) is head), None)
    if tuned is None:
        return 0
    images = [dict(recipe.data) for recipe in (head, tuned)]
    stored = all(item.pop("views", None) is not None for item in images)  # the views of few are also those of many
    return tuned.settings.get("trained_stages", 1) if stored and images[0] == images[1] else 0


def _fit(args: list[str], options: Namespace) -> None:
    """Train one part: here, or as a command of its own where that starts several processes."""
    devices = options.trainer.devices
    alone = torch.cuda.device_count() < 2 if devices == "auto" else str(devices) == "1"
    if alone and options.trainer.num_nodes == 1:
        train(args)
        return
    status = subprocess.run([sys.executable, "-m", "kth_lightning", *args], check=False).returncode
    if status:
        raise InputError(f"compare stopped, since this part of it failed: python -m kth_lightning {' '.join(args)}")
