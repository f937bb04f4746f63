"""The command `learning_curve`."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kth_lightning import __version__
from kth_lightning.cli.curve_flags import CurveFlags
from kth_lightning.cli.curve_trainings import Training, plan_trainings, train_all
from kth_lightning.cli.fit import train
from kth_lightning.cli.recipes import with_recipe
from kth_lightning.cli.run_name import HARDWARE, PLACES, default_run_dir, is_one_of
from kth_lightning.cli.same_run import make_images
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.evaluation.curve_scores import CurveScores
from kth_lightning.io.curve_folder import CurveFolder
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.run_lock import locked
from kth_lightning.io.terminal import print_rank_zero, printable
from kth_lightning.report.curve_page import write_curve
from kth_lightning.report.curve_sentences import check_sentence, class_sentence, prediction_sentences, size_sentence


def learning_curve_command(argv: list[str]) -> None:
    """Carry out `learning_curve` and print what came of it.

    Args:
        argv: The command line behind it.

    Raises:
        InputError: A setting, the data or the weights cannot be used, or a training fails.
    """
    _, *words = with_recipe(["learning_curve", *argv])
    flags = CurveFlags(words)
    config, settings, fit = flags.config, flags.settings(), flags.words_of_fit()
    folder = CurveFolder(Path(config.run_dir) if config.run_dir else default_run_dir("learning_curve", settings))
    data = config.data.clone()
    data.ignore_new = False
    outcome = draw_curve(
        folder,
        make_images(data),
        partial(_train, fit),
        settings,
        config.sizes,
        config.folds,
        config.data.ignore_new,
        str(config.trainer.accelerator),
    )
    lines = [*prediction_sentences(outcome), class_sentence(outcome), check_sentence(outcome, "acc")]
    print(printable("\n".join(filter(None, lines))))
    print(f"report: {folder.report}")


def draw_curve(
    folder: CurveFolder,
    data: ImageData,
    train: Callable[[RunFolder], object],
    settings: Mapping[str, Any],
    sizes: int,
    folds: int,
    ignore_new: bool,
    accelerator: str | None = None,
) -> dict[str, Any]:
    """Train on growing shares of the images, as far as that was not done before, and judge what came of it.

    Args:
        folder: To write.
        data: The images.
        train: Trains into a run folder that has a splits.csv, as far as its predictions.csv.
        settings: What makes the curve, flat.
        sizes: Number of shares.
        folds: Number of folds.
        ignore_new: Leave out images that the curve did not begin with.
        accelerator: As given to the trainer, where trainings may go side by side; then `train` can be pickled.

    Returns:
        What `judge_curve` returns, which is in learning_curve.json as well.

    Raises:
        InputError: A setting or the data cannot be used, a training fails, or the folder holds another curve.
    """
    if folder.path.is_file():
        raise InputError(f"--run_dir {folder.path} is a file; give a folder")
    with locked(folder.path):
        _require_same(folder, settings)
        trainings = plan_trainings(folder, data, sizes, folds, ignore_new)
        folder.write_start({"program": f"kth_lightning {__version__}", "settings": dict(settings)})
        for remark in data.prepared.remarks:
            print_rank_zero(remark)
        print_rank_zero(
            f"{len(data.prepared.catalogue.images)} images in {data.num_classes} classes; {len(trainings)} trainings "
            f"on {trainings[-1].images} to {trainings[0].images} of them; folder {folder.path}"
        )
        train_all(trainings, train, lambda size: _said([item for item in trainings if item.size == size]), accelerator)
        return write_curve(folder)


def _train(words: Sequence[str], run: RunFolder) -> None:
    train([*words, "--run_dir", str(run.path)], predictions_only=True)


def _require_same(folder: CurveFolder, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that holds a curve of other settings.

    Raises:
        InputError: It does.
    """
    if not (begun := folder.read_start().get("settings")):
        if folder.runs():
            raise InputError(f"{folder.start} is missing; give another --run_dir")
        return
    for key in sorted(begun.keys() | settings.keys()):
        ours, theirs = settings.get(key), begun.get(key)
        if ours != theirs and not is_one_of(key, (*PLACES, *HARDWARE)):
            raise InputError(
                f"--run_dir {folder.path} holds a learning curve with another --{key}: {theirs} there, {ours} here; "
                "give another --run_dir, or the same settings to go on with that one"
            )


def _said(trainings: Sequence[Training]) -> str:
    """Say what a size has come to, over its folds."""
    images = statistics.fmean(training.images_a_class for training in trainings)
    scores = CurveScores.gather([images], [[training.run.read_predictions() for training in trainings]])
    return size_sentence(images, scores.accuracy(0), float(scores.losses.mean()))
