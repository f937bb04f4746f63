"""The commands `test` and `validate`: a trained checkpoint on its run's own images, or on new ones."""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from kth_lightning import __version__
from kth_lightning.callbacks.evaluation_results import EvaluationResults
from kth_lightning.callbacks.feature_cache import FeatureCache
from kth_lightning.callbacks.progress import RunProgress
from kth_lightning.cli.allocation import keep_freed_memory
from kth_lightning.cli.evaluate_flags import EvaluationFlags, read_config
from kth_lightning.cli.evaluation_outcome import print_evaluation
from kth_lightning.cli.fit import with_whole_checkpoints
from kth_lightning.cli.precision import choose_precision
from kth_lightning.cli.quiet import quiet_lightning
from kth_lightning.cli.run_name import default_run_dir
from kth_lightning.cli.settings import check_cores, check_trainer
from kth_lightning.data.evaluated import EvaluatedImages
from kth_lightning.data.kept_groups import describe_groups, masks_digest
from kth_lightning.data.split_table import split_rows
from kth_lightning.errors import InputError
from kth_lightning.evaluation.own_test import read_own_test
from kth_lightning.evaluation.seen_images import leakage_warnings, seen_images
from kth_lightning.io.flat_settings import flat_settings
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.run_lock import locked
from kth_lightning.io.split_file import split_hashes
from kth_lightning.io.terminal import print_rank_zero
from kth_lightning.models import Classifier
from kth_lightning.models.checkpoint import load_classifier, read_checkpoint
from kth_lightning.run.recording import listed
from kth_lightning.run.training import supervised

_COMPARED = {
    "sha256": "another checkpoint", "part": "another part", "split": "other images", "groups": "images in other groups",
    "masks": "images with other masks",
}  # fmt: skip
_DECISIVE = (
    ("data", "value_range"), ("data", "group_by"), ("data", "ignore_groups"), ("trainer", "precision"),
    ("trainer", "limit_val_batches"), ("trainer", "limit_test_batches"), ("trainer", "callbacks"),
)  # fmt: skip
"""Settings on which figures depend, beside those by which images are found: these are compared themselves."""

_PARTS: dict[str, Literal["val", "test"]] = {"validate": "val", "test": "test"}


def evaluate_command(argv: Sequence[str]) -> None:
    """Evaluate a checkpoint, write what it is worth into a folder, and print it.

    Args:
        argv: As on the command line, the command first.

    Raises:
        InputError: A setting, the checkpoint or the images cannot be used.
    """
    keep_freed_memory()
    quiet_lightning()
    flags = EvaluationFlags(argv[0], argv[1:])
    options, part = flags.options, _PARTS[argv[0]]
    check_trainer(options.trainer)
    model = load_classifier(options.ckpt_path, model_class=flags.model_class)
    checkpoint = read_checkpoint(options.ckpt_path)
    flags.take_from(model)
    made = flags.instantiate()
    data = EvaluatedImages(model.class_names, part, flags.whole, **made.data.arguments)
    folder = RunFolder(_folder(options, flags))
    if options.trainer.fast_dev_run:
        _evaluate(_trainer(options, made.trainer, folder, []), made.trainer, model, data)
        return
    with ExitStack() as held:
        held.enter_context(locked(folder.path))
        evaluation = {
            "ckpt_path": str(Path(options.ckpt_path).absolute()),
            "sha256": hashlib.sha256(Path(options.ckpt_path).read_bytes()).hexdigest(),
            "part": part,
            "split": split_hashes(split_rows(data.catalogue, data.split))["split"],
            "groups": describe_groups(tested := [data.catalogue.images[item] for item in data.split.indices(part)]),
            "masks": masks_digest(tested, data.catalogue.root),
        }
        if _is_there(folder, evaluation, flags.settings()):
            print_rank_zero(f"{folder.path} holds this evaluation; delete it to repeat it")
        else:
            for sentence in (data.describe(), *data.prepared.remarks):
                print_rank_zero(sentence)
            for sentence in leakage_warnings(checkpoint, data, part, flags.whole):
                print_rank_zero(f"warning: {sentence}")
            own = read_own_test(Path(options.ckpt_path), checkpoint.get("images"), model.class_names)
            start = {"program": f"kth_lightning {__version__}", "evaluation": evaluation}
            results = EvaluationResults(
                folder, flags.text(checkpoint), start, data, checkpoint, seen_images(checkpoint), own
            )
            _evaluate(_trainer(options, made.trainer, folder, [results]), made.trainer, model, data)
        print_evaluation(folder)


def _folder(options: Namespace, flags: EvaluationFlags) -> Path:
    if options.run_dir is not None:
        return Path(options.run_dir)
    return default_run_dir(flags.command, flat_settings(flags.settings()))


def _is_there(folder: RunFolder, evaluation: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Tell whether a folder holds an evaluation already.

    Args:
        folder: That was given.
        evaluation: What start.json would tell of it; what an earlier version did not write there is not compared.
        settings: Those of the command.

    Raises:
        InputError: It holds something else.
    """
    if not folder.config.exists():
        return False
    before = folder.read_start().get("evaluation")
    if before is None:
        raise InputError(f"--run_dir {folder.path} holds a run that was trained there; give another folder")
    if not folder.finished:
        return False
    for key, name in _COMPARED.items():
        if key in before and before[key] != evaluation[key]:
            raise InputError(
                f"--run_dir {folder.path} holds the evaluation of {name}; give another folder, or delete that one"
            )
    told = read_config(folder.config)
    for kind, name in _DECISIVE:
        there, here = told.get(kind) or {}, settings[kind]
        if name in there and there[name] != here[name]:
            raise InputError(
                f"--run_dir {folder.path} holds an evaluation with another --{kind}.{name}: {there[name]} there, "
                f"{here[name]} here; give another folder, or delete that one"
            )
    return True


def _trainer(options: Namespace, made: Namespace, folder: RunFolder, results: list[L.Callback]) -> L.Trainer:
    """Make the trainer with stored features, and with what writes the folder."""
    if made.precision is None:
        made.precision = choose_precision(str(options.trainer.accelerator))
    given = listed(made.callbacks)
    shown = made.enable_progress_bar is not False and not any(isinstance(it, ProgressBar) for it in given)
    own = [*([RunProgress()] if shown else []), *([] if made.fast_dev_run else [FeatureCache()])]
    settings: dict[str, Any] = dict(made.as_dict()) | {
        "plugins": with_whole_checkpoints(listed(made.plugins)),
        "callbacks": [*own, *given, *results],
        "logger": False if made.logger is None else made.logger,
        "default_root_dir": made.default_root_dir or str(folder.path),
    }
    try:
        trainer = L.Trainer(**settings)
    except MisconfigurationException as error:
        raise InputError(f"--trainer: {str(error).splitlines()[0]}") from None
    except (TypeError, ValueError) as error:  # of flags that Lightning's own exception does not cover
        raise InputError(f"--trainer: {str(error).strip().splitlines()[0]}") from None
    check_cores(trainer, sync_batchnorm=options.trainer.sync_batchnorm)
    return trainer


def _evaluate(trainer: L.Trainer, made: Namespace, model: Classifier, data: EvaluatedImages) -> None:
    loop = trainer.validate if data.part == "val" else trainer.test
    with supervised(trainer, profiled=made.profiler is not None):
        loop(model, datamodule=data, verbose=bool(made.fast_dev_run))  # elsewhere the folder's figures are printed
