"""The trainings of a comparison: a `fit` command for each model, fold and seed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

import kth_lightning
from kth_lightning.cli.compare_split import Planned, settle_split
from kth_lightning.cli.launch import Step
from kth_lightning.cli.recipes import DEFAULT, Recipe
from kth_lightning.cli.run_name import settings_hash
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.terminal import is_first_process
from kth_lightning.report.table import Part


@dataclass(frozen=True)
class Plan:
    """Hold what a comparison on one split comes to.

    Attributes:
        folder: Of its tables.
        steps: The trainings, in an order in which they can be carried out.
        parts: Their runs, by model.
        data: The images; None in all processes but the first.
        early: The run whose result is printed as soon as it is there.
    """

    folder: Path
    steps: list[Step]
    parts: list[Part]
    data: ImageData | None
    early: RunFolder | None


def make_plan(
    argv: list[str], options: Namespace, settings: dict[str, Any], recipes: list[Recipe], folder: Path
) -> Plan:
    """Settle the split of a comparison, and list its trainings.

    Args:
        argv: The command line behind `compare`.
        options: The same, parsed.
        settings: Of the comparison, by name.
        recipes: Its models.
        folder: Where its runs go.

    Raises:
        InputError: Recipes or runs that are there do not go together.
    """
    planned, data = [], None
    for part, flags in _parts(options, folder):
        typed = [
            _typed([*argv, *flags], groups) for groups in (("--data", "--trainer", "--seed_everything"), ("--data",))
        ]
        for recipe in sorted(recipes, key=lambda recipe: bool(_head_of(recipe, recipes))):  # behind their heads
            planned.append((recipe, Planned(RunFolder(part / recipe.name), recipe.file, *typed)))
    if is_first_process():
        begun = RunFolder(folder).read_start()
        data = settle_split(folder, [item for _, item in planned], options.retrain)
        if not begun:
            program = f"kth_lightning {kth_lightning.__version__}"
            RunFolder(folder).write_start({"program": program, "settings": settings_hash(settings, paths=False)})
    steps, early = [], None
    for recipe, item in sorted(planned, key=lambda pair: pair[0].name != DEFAULT or bool(_head_of(pair[0], recipes))):
        args, needs = ["fit", "--config", str(item.recipe), *item.flags, "--run_dir", str(item.run.path)], None
        args += ["--store_maps_before", str(cut)] if (cut := _shared_cut(recipe, recipes)) else []
        if head := _head_of(recipe, recipes):
            needs = RunFolder(item.run.path.with_name(head.name))
            args += ["--model.init_args.init_head_from", str(needs.best_checkpoint)]
        features = (recipe.trunk, repr(sorted(recipe.data.items()))) if recipe.trunk else None
        steps.append(Step(item.run, args, needs, features))
        if recipe.name == DEFAULT and len(planned) == len(recipes) > 1:  # that of one fold is not the answer
            early = item.run
    runs = [Part(recipe.name, [item.run for other, item in planned if other is recipe]) for recipe in recipes]
    return Plan(folder, steps, runs, data, early)


def _typed(argv: list[str], kinds: tuple[str, ...]) -> list[str]:
    """Keep the flags of these kinds, as they were typed: what is not typed is the recipe's.

    Args:
        argv: The command line.
        kinds: Such as "--data", which stands for a file of settings and for flags such as --data.root.
    """
    groups: list[list[str]] = []
    for word in argv:
        if word.startswith("--") or not groups:
            groups.append([])
        groups[-1].append(word)
    return [word for group in groups if group[0].partition("=")[0].partition(".")[0] in kinds for word in group]


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
