"""One run: from a configuration to a run folder."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import lightning as L
import yaml
from jsonargparse import Namespace
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from kth_lightning import __version__
from kth_lightning.callbacks.calibrated_loss import CALIBRATED, CalibratedLoss
from kth_lightning.callbacks.checkpoints import AtomicCheckpointIO, has_checkpoint
from kth_lightning.callbacks.ema import TailAveraging
from kth_lightning.callbacks.feature_cache import FeatureCache
from kth_lightning.callbacks.one_thread import OneThread
from kth_lightning.callbacks.progress import RunProgress
from kth_lightning.callbacks.run_inputs import RunInputs
from kth_lightning.cli.longer_run import continue_from, read_shorter
from kth_lightning.cli.objects import Objects
from kth_lightning.cli.outcome import print_outcome
from kth_lightning.cli.precision import choose_precision
from kth_lightning.cli.recipes import with_recipe
from kth_lightning.cli.run_name import settings_hash
from kth_lightning.cli.same_run import is_finished, make_images, require_images, with_split
from kth_lightning.cli.settings import check_cores, check_links, check_parts, check_settings, check_validation
from kth_lightning.cli.training_flags import TrainingFlags
from kth_lightning.cli.which_run import choose_folder, read_begun
from kth_lightning.cli.whole_boxes import see_boxes_whole
from kth_lightning.data.module import ImageData
from kth_lightning.data.split import Part
from kth_lightning.errors import InputError
from kth_lightning.evaluation.seen_images import Origin, seen_images
from kth_lightning.io.class_path import import_part
from kth_lightning.io.flat_settings import flat_settings
from kth_lightning.io.progress import stages
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.terminal import print_rank_zero
from kth_lightning.models import Classifier
from kth_lightning.models.checkpoint import read_checkpoint
from kth_lightning.models.keepable import require_kept_state
from kth_lightning.models.origin import origin_digest
from kth_lightning.models.pretrained import PretrainedClassifier
from kth_lightning.models.weights import find_weights
from kth_lightning.run.recording import Recording, listed
from kth_lightning.run.refused_callbacks import check_callbacks
from kth_lightning.run.training import supervised, train_and_predict, train_and_test, try_out


class TrainingCLI(TrainingFlags):
    """Parse, resolve and carry out `fit`.

    Args:
        args: As on the command line, the command first; sys.argv where left out; or the settings by name.
        held: Takes the lock on the run folder.
        objects: What takes the place of the parts that the arguments name.
        predictions_only: Keep of the test the predictions alone, and no checkpoint.
    """

    def __init__(
        self, args: ArgsType, held: ExitStack, objects: Objects | None = None, predictions_only: bool = False
    ) -> None:
        self.held = held
        self.objects = objects
        self.predictions_only = predictions_only
        super().__init__(args)

    def before_instantiate_classes(self) -> None:
        """Find out which run this is, and settle what the hardware and the weights decide."""
        config = self.config[self.subcommand]
        if not self.predictions_only:  # which is a part of a command that has its own
            self.held.enter_context(stages("reading images", "resizing images", "features", "training", "testing"))
        check_settings(config)
        if not self.objects:
            see_boxes_whole(config.data, make_images)
        self.averaging = [TailAveraging(config.ema_decay)] if config.ema_decay is not None else []
        given = flat_settings(self._settings(config))
        self.recorded = not config.trainer.fast_dev_run
        self.run, begun = choose_folder(config, given, self.recorded, self._images), None
        if self.recorded:
            begun = read_begun(self.run, config.continue_from is not None, self.held)
        shorter = None
        if begun is None and self.recorded and config.continue_from is not None:
            shorter = read_shorter(RunFolder(Path(config.continue_from)))
        known = begun or shorter
        if config.trainer.precision is None:
            chosen = known.chosen_precision if known else None
            config.trainer.precision = chosen or choose_precision(str(config.trainer.accelerator))
        if _takes_weights(config.model):
            self._settle_weights(config.model.init_args, known.weights_sha256 if known else None)
        settings = config.model.get("init_args", Namespace())
        self.origin_file = settings.get("init_head_from")
        resolved = self._settings(config)
        text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
        remark = self.objects.remark if self.objects else ""
        self.written = f"# kth_lightning {__version__}\n{remark}{text}"
        self.start: dict[str, Any] = {"program": f"kth_lightning {__version__}"}
        if begun is None:
            precision_given = given.get("trainer.precision") is not None
            self.start |= {"settings": settings_hash(given, paths=False), "precision_given": precision_given}
        else:
            begun.require(flat_settings(resolved))
        if shorter:
            require_images(shorter.run, config.data, self._images)
            continue_from(shorter, self.run, flat_settings(resolved))
            self.start["origin"] = shorter.start.get("origin")
        if self.recorded and self.run.splits.exists():
            require_images(self.run, config.data, self._images)
            config.data = with_split(config.data, self.run)
        if begun and is_finished(self.run):
            raise _FinishedError(self.run)
        if self.origin_file and self.run.last_checkpoint.exists() and not Path(self.origin_file).exists():
            settings.init_head_from = None  # what it gave is in the checkpoint that training goes on from

    def _settings(self, config: Namespace) -> dict[str, Any]:
        """Return the configuration that alone repeats the run: all of it but what is written where."""
        whole = Namespace({"subcommand": self.subcommand, self.subcommand: config})
        settings = yaml.safe_load(self.parser.dump(whole, skip_unset=False, skip_link_targets=True))[self.subcommand]
        for key in ("run_dir", "continue_from", "store_maps_before", "config"):
            settings.pop(key, None)
        return self.objects.described_in(settings) if self.objects else settings

    def _images(self, data: Namespace) -> ImageData:
        return self.objects.make_images(data) if self.objects else make_images(data)

    def _settle_weights(self, settings: Namespace, known: str | None) -> None:
        """Find the weights that a backbone begins with, and have the configuration tell them by their content."""
        if self.objects:
            assert isinstance(self.objects.model, PretrainedClassifier)
            weights = self.objects.model.weights
        else:
            weights = find_weights(settings.weights, settings.backbone, settings.weights_sha256 or known)
        weights.require(settings.weights_sha256)
        settings.weights, settings.weights_sha256 = weights.choice, weights.sha256 or None
        print_rank_zero(f"weights of {settings.backbone}: {weights.origin} (sha256 {weights.sha256[:12] or '-'})")

    def instantiate_classes(self) -> None:
        """Make the data, the model and the trainer, and see that the model goes with the data."""
        if self.objects is None:
            super().instantiate_classes()
        else:
            self.config_init = self.objects.put_into(self.config)
            self.datamodule = self._images(self.config[self.subcommand].data)
            self.model = self.objects.model
            self.objects.require_agreement(self.datamodule)
            self.trainer = self.instantiate_trainer()
        require_kept_state(self.model)
        check_links(self.model, self.datamodule)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Make the trainer with what every run has: stored features and, for `fit`, all that the run folder holds."""
        config, made = self.config[self.subcommand], self.config_init[self.subcommand].trainer
        self.origin = self._origin()
        own: dict[str, Any] = {"plugins": with_whole_checkpoints(listed(made.plugins))}
        given = listed(made.callbacks)
        check_callbacks(given)
        shown = config.trainer.enable_progress_bar is not False and not any(isinstance(it, ProgressBar) for it in given)
        callbacks: list[L.Callback] = [RunProgress()] if shown else []
        callbacks += self.averaging
        callbacks += [CalibratedLoss()] if config.monitor == CALIBRATED else []
        if not config.trainer.fast_dev_run:
            callbacks += [FeatureCache(config.store_maps_before), OneThread()]
        if self.recorded:
            by_epoch = made.val_check_interval in (None, 1.0) and made.check_val_every_n_epoch is not None
            inputs = RunInputs(self.run, self.written, self.start, self.origin)
            self.recording = Recording(
                self.run, inputs, self.origin, config.monitor, config.patience, made.logger, by_epoch
            )
            own |= {"logger": self.recording.loggers}
            callbacks += self.recording.callbacks
        if config.trainer.default_root_dir is None:
            own["default_root_dir"] = str(self.run.path)
        self.trainer_defaults["callbacks"] = callbacks
        try:
            trainer = super().instantiate_trainer(**own, **kwargs)
        except (TypeError, ValueError) as error:  # of flags that Lightning's own exception does not cover
            raise InputError(f"--trainer: {str(error).strip().splitlines()[0]}") from None
        check_cores(trainer, sync_batchnorm=config.trainer.sync_batchnorm)
        return trainer

    def _origin(self) -> Origin | None:
        """Find out what the run starts from, or started from, and which images that has seen."""
        file = self.origin_file
        if not file:
            return None
        if has_checkpoint(self.run.last_checkpoint):
            return Origin.resumed(file, read_checkpoint(self.run.last_checkpoint))
        self.start["origin"] = {"path": file, "sha256": origin_digest(file)}
        return Origin(file, seen_images(read_checkpoint(file)))

    def before_fit(self) -> None:
        """Say what is about to be trained on what."""
        trained = sum(item.numel() for item in self.model.parameters() if item.requires_grad)
        total = sum(item.numel() for item in self.model.parameters())
        images: dict[Part, int] = {part: len(self.datamodule.split.indices(part)) for part in get_args(Part)}
        check_validation(self.trainer, images["train"], self.datamodule.batch_size)
        check_parts(self.trainer, images, self.datamodule.batch_size)
        for sentence in (self.datamodule.describe(), *self.datamodule.prepared.remarks):
            print_rank_zero(sentence)
        print_rank_zero(
            f"{type(self.model).__name__}: {trained:,} of {total:,} parameters trained, "
            f"precision {self.trainer.precision}, run folder {self.run.path}"
        )
        if self.origin is not None:
            for sentence in self.origin.leakage(self.datamodule).sentences:
                print_rank_zero(f"warning: {sentence}")

    def fit(self, model: Classifier, datamodule: ImageData) -> None:
        """Train, complete the best checkpoint and test it; or try a few batches out."""
        with supervised(self.trainer, profiled=self.config_init[self.subcommand].trainer.profiler is not None):
            if self.predictions_only:
                train_and_predict(self.trainer, model, datamodule, self.run)
            elif self.recorded:
                train_and_test(self.trainer, model, datamodule, self.recording)
            else:
                try_out(self.trainer, model, datamodule)


def fit_command(args: list[str]) -> None:
    """Carry out `fit` and print what came of it; a run without a recipe takes that for one's own images.

    Args:
        args: As on the command line, the command first.
    """
    args = with_recipe(args)
    if run := train(args):
        print_outcome(run)


def train(args: ArgsType = None, objects: Objects | None = None, predictions_only: bool = False) -> RunFolder | None:
    """Carry out `fit` and return the run folder that was written.

    Args:
        args: As on the command line, the command first; sys.argv where left out; or the settings by name.
        objects: What takes the place of the parts that the settings name, for `fit` from Python.
        predictions_only: Keep of the test the predictions alone, and no checkpoint: no figures, report or pictures.

    Raises:
        InputError: A setting, the data or the weights cannot be used.
    """
    try:
        with ExitStack() as held:
            cli = TrainingCLI(args, held, objects, predictions_only)
            return cli.run if cli.recorded else None
    except _FinishedError as finished:
        return finished.run
    except MisconfigurationException as error:
        raise InputError(f"--trainer: {str(error).splitlines()[0]}") from None


class _FinishedError(Exception):
    def __init__(self, run: RunFolder) -> None:
        self.run = run


def _takes_weights(model: Namespace) -> bool:
    settings = model.get("init_args", {})
    named = all(name in settings for name in ("backbone", "weights", "weights_sha256"))
    return named and issubclass(import_part(model.class_path, "--model"), PretrainedClassifier)


def with_whole_checkpoints(plugins: list[Any]) -> list[Any]:
    """Add to the plugins that were given what writes checkpoints whole, unless one of them writes checkpoints."""
    return plugins if any(isinstance(item, CheckpointIO) for item in plugins) else [*plugins, AtomicCheckpointIO()]
