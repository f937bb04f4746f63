"""Train models on one split, test them on the same images, and set them side by side."""

import inspect
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import yaml
from jsonargparse import Namespace

from kth_lightning.cli.compare_plan import Plan, make_plan
from kth_lightning.cli.compare_split import begun_runs
from kth_lightning.cli.fit import train
from kth_lightning.cli.launch import Step, check_launcher, launch
from kth_lightning.cli.outcome import print_outcome
from kth_lightning.cli.parser import Parser
from kth_lightning.cli.recipes import DEFAULT, Recipe, find_recipes
from kth_lightning.cli.run_name import default_run_dir, runs_alike
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
from kth_lightning.io.terminal import print_rank_zero
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
    check_launcher(options)
    _check_weights(recipes)
    if options.also_random_split:
        _require_groups(options.data)
    if RunFolder(folder).config.exists():
        raise InputError(f"--run_dir {folder} holds a run that was trained there; give another folder")
    with locked(folder):
        plans = [make_plan(argv, options, settings, recipes, folder)]
        if options.also_random_split:
            ungrouped = [*argv, "--data.ignore_groups", "true"]
            plans.append(make_plan(ungrouped, options, settings, recipes, folder / FOLDER))
        if options.launcher:
            _launch([step for plan in plans for step in plan.steps], options, folder)
        parts = _carry_out(plans[0], options)
        if options.also_random_split:
            print("\nThe same on a random split, which ignores groups:\n")
            _carry_out(plans[1], options)
            print("\n" + "\n".join(write_random_split(folder, [figures(part, reference=False) for part in parts])))
    if source == "sample":
        print(f"\n{ATTRIBUTION}")
    with attempt("the report is not written"):
        print(f"\nThe report, to look at in a browser: {write_report(folder)}")
    print(f"The table is in {folder / 'table.md'}, every run beside it; for the curves: tensorboard --logdir {folder}")


def _carry_out(plan: Plan, options: Namespace) -> list[Part]:
    """Train what was not launched, one after the other, and write the tables."""
    for step in plan.steps:
        if not options.launcher:
            _fit(step.args, options)
        if step.run == plan.early:
            print_outcome(step.run)
    print(write_table(plan.parts, plan.folder, reference=source_name(vars(options.data)) == "kth"))
    if options.folds and plan.data:
        with attempt(f"{plan.folder / SUSPECTS} is not written"):
            print(f"\n{write_suspect_labels(plan.parts[0], plan.data, plan.folder).sentence}")
    return plan.parts


def _launch(steps: list[Step], options: Namespace, folder: Path) -> None:
    """Train side by side what has not ended; what has is looked at here, as without a launcher."""
    left = []
    for step in steps:
        alone = replace(step, args=[*step.args, "--trainer.devices", "1"])
        if step.run.finished:
            train(alone.args)
        else:
            left.append(alone)
    launch(left, options, folder)


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
        help="Recipes, by name (best, fast, head, finetune, benchmark) or YAML file. By default the article's three "
        "models (head, finetune, benchmark), and best before them where the images are your own.",
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
        help="Train and test everything again on a random split that ignores groups, and say how much better it looks.",
    )
    parser.add_argument(
        "--launcher",
        type=Literal["local", "slurm"] | None,
        default=None,
        help="Train side by side, one model on one device: as processes of this machine, or as jobs at SLURM.",
    )
    parser.add_argument(
        "--parallel",
        type=int | None,
        default=None,
        help="Most trainings at once, with --launcher; by default one a GPU (one on a CPU), and all at SLURM.",
    )
    parser.add_argument(
        "--slurm",
        nargs="+",
        type=str,
        default=None,
        help="KEY=VALUE for sbatch, by the names of submitit's SlurmExecutor, such as partition=gpu time=120 "
        "(minutes) cpus_per_task=8.",
    )
    parser.add_argument("--run_dir", type=str | None, default=None, help="Output folder; a folder in runs/ by default.")
    parser.add_class_arguments(ImageData, "data", skip={"num_folds", "fold", "seed"}, instantiate=False)
    others = set(inspect.signature(L.Trainer.__init__).parameters) - _TRAINER_FLAGS - {"self"}
    parser.add_class_arguments(L.Trainer, "trainer", skip=set(others), instantiate=False)
    return parser


def _settings_of(parser: Parser, options: Namespace) -> dict[str, Any]:
    settings = yaml.safe_load(parser.dump(options, skip_unset=False))
    for name in ("run_dir", "retrain", "also_random_split", "launcher", "parallel", "slurm", "config"):
        settings.pop(name, None)
    return flat_settings(settings)


def _default_folder(settings: dict[str, Any], data: Namespace) -> Path:
    folder = default_run_dir("compare", settings)
    if not folder.exists():
        for other in runs_alike("compare", settings):
            parts = begun_runs(other.path)
            if parts and not find_difference(parts[0], data):
                print_rank_zero(f"using {other.path}: the same settings, and the same images in another place")
                return other.path
    return folder


def _check_weights(recipes: list[Recipe]) -> None:
    """Find out before any training whether the pretrained models can be trained."""
    for recipe in recipes:
        if recipe.trunk:
            find_weights(recipe.trunk[1], recipe.trunk[0])


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
