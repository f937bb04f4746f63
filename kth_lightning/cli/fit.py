"""One run: from a configuration to a run folder."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from kth_lightning import __version__
from kth_lightning.callbacks.calibrated_loss import CALIBRATED, CalibratedLoss
from kth_lightning.callbacks.checkpoint_completion import CheckpointCompletion
from kth_lightning.callbacks.checkpoints import (
    AtomicCheckpointIO,
    BestCheckpoint,
    LastCheckpoint,
    has_checkpoint,
    is_complete,
)
from kth_lightning.callbacks.divergence import DivergenceMonitor
from kth_lightning.callbacks.early_stopping import ResumableEarlyStopping
from kth_lightning.callbacks.ema import TailAveraging
from kth_lightning.callbacks.feature_cache import FeatureCache
from kth_lightning.callbacks.harmless_logger import forgive, without_metrics
from kth_lightning.callbacks.history import History
from kth_lightning.callbacks.logged_figures import LoggedFigures
from kth_lightning.callbacks.logged_pictures import LoggedPictures
from kth_lightning.callbacks.progress import RunProgress
from kth_lightning.callbacks.run_inputs import RunInputs
from kth_lightning.callbacks.run_report import RunReport
from kth_lightning.callbacks.tensorboard_logger import RunTensorBoard
from kth_lightning.callbacks.tensorboard_views import TensorBoardViews
from kth_lightning.callbacks.test_results import TestResults
from kth_lightning.cli.allocation import keep_freed_memory
from kth_lightning.cli.longer_run import continue_from, read_shorter
from kth_lightning.cli.outcome import print_outcome
from kth_lightning.cli.parser import Parser
from kth_lightning.cli.precision import choose_precision
from kth_lightning.cli.quiet import quiet_lightning
from kth_lightning.cli.recipes import with_default_recipe
from kth_lightning.cli.run_name import default_run_dir, runs_alike, settings_hash
from kth_lightning.cli.same_run import Begun, find_difference, is_finished, require_images, with_split
from kth_lightning.cli.settings import LINKS, check_links, check_seed, check_settings, check_validation
from kth_lightning.data.module import ImageData
from kth_lightning.data.split import Part
from kth_lightning.errors import InputError
from kth_lightning.evaluation.seen_images import Origin, image_keys, leakage_warnings, seen_images
from kth_lightning.io.class_path import import_part
from kth_lightning.io.flat_settings import flat_settings
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.run_lock import locked
from kth_lightning.io.terminal import print_rank_zero
from kth_lightning.models import Classifier
from kth_lightning.models.checkpoint import read_checkpoint, require_numbers
from kth_lightning.models.origin import origin_digest
from kth_lightning.models.pretrained import PretrainedClassifier
from kth_lightning.models.weights import find_weights

COMMANDS = {
    "fit": "Train one model into a run folder, then test its best checkpoint.",
    "validate": "Evaluate a checkpoint, given with --ckpt_path, on the validation images.",
    "test": "Evaluate a checkpoint, given with --ckpt_path, on the test images.",
}


class TrainingCLI(LightningCLI):
    """Parse, resolve and carry out `fit`, `validate` and `test`.

    Args:
        args: As on the command line, the command first; sys.argv where left out.
        held: Takes the lock on the run folder.
    """

    def __init__(self, args: ArgsType, held: ExitStack) -> None:
        self.held = held
        keep_freed_memory()
        if not torch.cuda.is_available():
            # Lightning sets it; torch's optimisers would then look for a driver's library at every step.
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
        quiet_lightning()
        super().__init__(
            Classifier,
            ImageData,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={
                "max_epochs": 100,
                "num_sanity_val_steps": 0,
                "use_distributed_sampler": False,
                "enable_model_summary": False,
                "enable_autolog_hparams": False,
            },
            parser_kwargs={
                command: {"prog": f"python -m kth_lightning {command}", "description": text}
                for command, text in COMMANDS.items()
            },
            subclass_mode_model=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_class=Parser,
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Offer what makes sense for a classifier; `fit` resumes by its run folder, not by a checkpoint's path."""
        common = {"model", "datamodule", "weights_only"}
        return {
            "fit": common | {"train_dataloaders", "val_dataloaders", "ckpt_path"},
            "validate": common | {"dataloaders"},
            "test": common | {"dataloaders"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder and early stopping, and have the model take from the data what it must agree with."""
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Run folder to write; runs/<model>-<hash of the configuration> by default. An interrupted run is "
            "resumed, a finished one is left unchanged.",
        )
        parser.add_argument(
            "--continue_from",
            type=str | None,
            default=None,
            help="Run folder of the same settings and another --trainer.max_epochs, to begin where that run ended: the "
            "result is the same as from the first epoch. For a constant learning rate only.",
        )
        parser.add_argument(
            "--monitor",
            type=Literal["val/loss", "val/loss_calibrated"],
            default="val/loss",
            help="Validation figure that is lowest in the best epoch: the loss, or the loss after temperature scaling "
            "that is fitted to the epoch.",
        )
        parser.add_argument(
            "--patience",
            type=int,
            default=10,
            help="Number of epochs without a lower --monitor after which training stops.",
        )
        parser.add_argument(
            "--ema_decay",
            type=float | None,
            default=None,
            help="Decay of an exponential moving average of the weights, which is validated and kept in their place.",
        )
        parser.add_argument(
            "--store_maps_before",
            type=int,
            default=0,
            help="For a FeatureHead: also store the feature maps in front of this many last stages of the backbone, "
            "for a later run that trains those stages. This run stays the same.",
        )
        for name in LINKS:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Refuse a seed that numpy would not take, before it is given one."""
        super().parse_arguments(parser, args)
        check_seed(self.config[self.config.subcommand].seed_everything)

    def _parse_ckpt_path(self) -> None:
        # Lightning's own lets the checkpoint's settings win over the command line without a word (issue 21455).
        pass

    def before_instantiate_classes(self) -> None:
        """Find out which run this is, and settle what the hardware and the weights decide."""
        config = self.config[self.subcommand]
        check_settings(config)
        given = flat_settings(self._settings(config))
        self.recorded = self.subcommand == "fit" and not config.trainer.fast_dev_run
        self.run, begun = self._run_folder(given), None
        if self.recorded:
            begun = self._begun()
        elif self.subcommand != "fit" and config.ckpt_path is None:
            raise InputError("--ckpt_path is missing; give a run's checkpoints/best.ckpt")
        elif self.subcommand != "fit":
            checkpoint = read_checkpoint(config.ckpt_path)
            require_numbers(config.ckpt_path, checkpoint)
            if config.data.value_range is None:  # not that of other images, which the weights do not know
                config.data.value_range = checkpoint["hyper_parameters"].get("value_range")
        shorter = None
        if begun is None and self.recorded and config.continue_from is not None:
            shorter = read_shorter(RunFolder(Path(config.continue_from)))
        known = begun or shorter
        if config.trainer.precision is None:
            chosen = known.chosen_precision if known else None
            config.trainer.precision = chosen or choose_precision(str(config.trainer.accelerator))
        settings = config.model.get("init_args", Namespace())
        if self.subcommand == "fit" and _takes_weights(config.model):
            wanted = settings.weights_sha256 or (known.weights_sha256 if known else None)
            found = find_weights(settings.weights, settings.backbone, wanted)
            found.require(settings.weights_sha256)
            settings.weights, settings.weights_sha256 = found.choice, found.sha256 or None
            print_rank_zero(f"weights of {settings.backbone}: {found.origin} (sha256 {found.sha256[:12] or '-'})")
        self.origin_file = settings.get("init_head_from")
        resolved = self._settings(config)
        text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
        self.written = f"# kth_lightning {__version__}\n{text}"
        self.start: dict[str, Any] = {"program": f"kth_lightning {__version__}"}
        if begun is None:
            precision_given = given.get("trainer.precision") is not None
            self.start |= {"settings": settings_hash(given, places=False), "precision_given": precision_given}
        else:
            begun.require(flat_settings(resolved))
        if shorter:
            require_images(shorter.run, config.data)
            continue_from(shorter, self.run, flat_settings(resolved))
            self.start["origin"] = shorter.start.get("origin")
        if self.recorded and self.run.splits.exists():
            require_images(self.run, config.data)
            config.data = with_split(config.data, self.run)
        if begun and is_finished(self.run):
            raise _FinishedError(self.run)
        if self.origin_file and self.run.last_checkpoint.exists() and not Path(self.origin_file).exists():
            settings.init_head_from = None  # what it gave is in the checkpoint that training goes on from

    def _run_folder(self, given: dict[str, Any]) -> RunFolder:
        config = self.config[self.subcommand]
        if config.run_dir is not None:
            return RunFolder(Path(config.run_dir))
        run = RunFolder(default_run_dir(config.model.class_path, given))
        if self.recorded and not run.config.exists():
            for other in runs_alike(config.model.class_path, given):
                if other.splits.exists() and not find_difference(other, config.data):
                    print_rank_zero(f"{other.path} began with these settings and these images, which lay elsewhere")
                    return other
        return run

    def _begun(self) -> Begun | None:
        """Read what the run folder holds; keep other commands off it until this one ends, unless it is finished."""
        if self.run.path.exists() and not self.run.path.is_dir():
            raise InputError(f"--run_dir {self.run.path} is a file; give a folder")
        if not self.run.finished:
            self.held.enter_context(locked(self.run.path))
        if self.config[self.subcommand].continue_from is not None and not self.run.config.exists():
            return None  # whatever an interrupted command has copied is copied again
        return Begun.read(self.run)

    def _settings(self, config: Namespace) -> dict[str, Any]:
        """Return the configuration that alone repeats the run: all of it but what is written where."""
        whole = Namespace({"subcommand": self.subcommand, self.subcommand: config})
        settings = yaml.safe_load(self.parser.dump(whole, skip_unset=False, skip_link_targets=True))[self.subcommand]
        for key in ("run_dir", "continue_from", "store_maps_before", "config"):
            settings.pop(key, None)
        return settings

    def instantiate_classes(self) -> None:
        """Make the data, the model and the trainer, and see that the model goes with the data."""
        super().instantiate_classes()
        check_links(self.model, self.datamodule)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Make the trainer with what every run has: stored features and, for `fit`, all that the run folder holds."""
        config = self.config[self.subcommand]
        self.origin = self._origin()
        own: dict[str, Any] = {"plugins": self._plugins()}
        given = _listed(self.config_init[self.subcommand].trainer.callbacks)
        shown = config.trainer.enable_progress_bar is not False and not any(isinstance(it, ProgressBar) for it in given)
        callbacks: list[L.Callback] = [RunProgress()] if shown else []
        if self.subcommand == "fit":
            callbacks += [TailAveraging(config.ema_decay)] if config.ema_decay is not None else []
            callbacks += [CalibratedLoss()] if config.monitor == CALIBRATED else []
        if not config.trainer.fast_dev_run:
            callbacks.append(FeatureCache(config.store_maps_before))
        if self.recorded:
            self.loggers = self._loggers()
            own |= {"logger": self.loggers}
            callbacks += self._recording(config)
        elif self.subcommand != "fit" and config.trainer.logger is None:
            own["logger"] = False
        if config.trainer.default_root_dir is None:
            own["default_root_dir"] = str(self.run.path)
        self.trainer_defaults["callbacks"] = callbacks
        try:
            trainer = super().instantiate_trainer(**own, **kwargs)
        except (TypeError, ValueError) as error:  # of flags that Lightning's own exception does not cover
            raise InputError(f"--trainer: {str(error).strip().splitlines()[0]}") from None
        cores = os.cpu_count() or 1
        if isinstance(trainer.accelerator, CPUAccelerator):
            if trainer.num_devices > cores:
                raise InputError(f"--trainer.devices {trainer.num_devices}: there are {cores} CPU cores; give no more")
            if config.trainer.sync_batchnorm:
                raise InputError("--trainer.sync_batchnorm: PyTorch has it on GPUs only; leave it out")
        return trainer

    def _plugins(self) -> list[Any]:
        """List the plugins that were given and, unless one of them writes checkpoints, what writes them whole."""
        plugins = _listed(self.config_init[self.subcommand].trainer.plugins)
        return plugins if any(isinstance(item, CheckpointIO) for item in plugins) else [*plugins, AtomicCheckpointIO()]

    def _loggers(self) -> list[Logger]:
        """List the run folder's TensorBoard and the loggers that were given; none where logging is turned off."""
        trainer = self.config_init[self.subcommand].trainer
        given = trainer.logger
        if given is False:
            return []
        by_epoch = trainer.val_check_interval in (None, 1.0) and trainer.check_val_every_n_epoch is not None
        resumed_at: int | None = 0
        if is_complete(self.run.best_checkpoint):
            resumed_at = None
        elif has_checkpoint(self.run.last_checkpoint):
            last = read_checkpoint(self.run.last_checkpoint)
            resumed_at = last["epoch"] + 1 if by_epoch else last["global_step"]
        self.board = RunTensorBoard(self.run, by_epoch, resumed_at)
        others = [] if given is True else _listed(given)
        for logger in others:
            try:
                getattr(logger, "experiment", None)
            except Exception as error:  # whatever a logger stumbles over
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                raise InputError(
                    f"--trainer.logger: {type(logger).__name__} cannot be opened ({reason}); correct its settings, or "
                    "leave it out"
                ) from None
        return [forgive(logger) for logger in (self.board, *others)]

    def _recording(self, config: Namespace) -> list[L.Callback]:
        """Make what fills the run folder while a run trains; set apart what joins it for validation and test."""
        history = History(self.run)
        self.completion = CheckpointCompletion(self.run)
        self.results = TestResults(self.run, config.monitor, history, self.origin)
        self.report = RunReport(self.run)
        return [
            DivergenceMonitor(self.run),
            RunInputs(self.run, self.written, self.start, self.origin),
            history,
            *([LoggedFigures(self.run, config.monitor, self.loggers)] if self.loggers else []),
            *([LoggedPictures(self.run, config.monitor, self.loggers)] if self.loggers else []),
            *([TensorBoardViews(self.run, self.board)] if self.loggers else []),
            ResumableEarlyStopping(config.monitor, config.patience),
            BestCheckpoint(
                dirpath=str(self.run.checkpoints),
                filename="best",
                monitor=config.monitor,
                auto_insert_metric_name=False,
                enable_version_counter=False,
            ),
            LastCheckpoint(self.run.last_checkpoint),
        ]

    def _origin(self) -> Origin | None:
        """Find out what the run starts from, or started from, and which images that has seen."""
        file = self.origin_file
        if self.subcommand != "fit" or not file:
            return None
        if has_checkpoint(self.run.last_checkpoint):
            return Origin(file, read_checkpoint(self.run.last_checkpoint).get("inherited"))
        self.start["origin"] = {"path": file, "sha256": origin_digest(file)}
        return Origin(file, seen_images(read_checkpoint(file)))

    def before_fit(self) -> None:
        """Say what is about to be trained on what."""
        trained = sum(item.numel() for item in self.model.parameters() if item.requires_grad)
        total = sum(item.numel() for item in self.model.parameters())
        check_validation(self.trainer, len(self.datamodule.split.indices("train")), self.datamodule.batch_size)
        for sentence in (self.datamodule.describe(), *self.datamodule.prepared.remarks):
            print_rank_zero(sentence)
        print_rank_zero(
            f"{type(self.model).__name__}: {trained:,} of {total:,} parameters trained, {self.trainer.precision}, "
            f"run folder {self.run.path}"
        )
        if self.origin is not None:
            for sentence in self.origin.leakage(self.datamodule).sentences:
                print_rank_zero(f"warning: {sentence}")

    def before_validate(self) -> None:
        """Say where the validation images are not new to the checkpoint."""
        self._object("val")

    def before_test(self) -> None:
        """Say where the test images are not new to the checkpoint."""
        self._object("test")

    def _object(self, part: Part) -> None:
        checkpoint = read_checkpoint(self.config[self.subcommand].ckpt_path)
        for sentence in leakage_warnings(checkpoint, self.datamodule, part):
            print_rank_zero(f"warning: {sentence}")

    def fit(self, model: Classifier, datamodule: ImageData) -> None:
        """Train from the last checkpoint, if there is one, then complete the best one and test it."""
        with self._supervised("fit"):
            if not self.recorded:
                self._try_out()
                return
            if not is_complete(self.run.best_checkpoint):
                last = self.run.last_checkpoint
                resume = str(last) if has_checkpoint(last) else None
                if resume:
                    self._require_own(last)
                self.trainer.fit(model, datamodule=datamodule, ckpt_path=resume, weights_only=True)
                if not self.run.best_checkpoint.exists():
                    raise InputError(_without_best(self.run, resumed=resume is not None))
                self._require_own(self.run.best_checkpoint)
                self._evaluate(self.trainer.validate, first=[self.completion])
            else:
                self._require_own(self.run.best_checkpoint)
            self._evaluate(self.trainer.test, first=[self.results], last=[self.report])

    def validate(self, **given: Any) -> None:
        """Evaluate a checkpoint on the validation images."""
        with self._supervised("validate"):
            self.trainer.validate(**given)

    def test(self, **given: Any) -> None:
        """Evaluate a checkpoint on the test images."""
        with self._supervised("test"):
            self.trainer.test(**given)

    @contextmanager
    def _supervised(self, command: str) -> Iterator[None]:
        """Carry out a command; where it fails, leave no process behind that waits for this one."""
        try:
            yield
        except BaseException as error:
            launcher = self.trainer.strategy.launcher
            if launcher is not None:
                launcher.kill(getattr(signal, "SIGKILL", signal.SIGTERM))
            if isinstance(error, SystemExit):  # Lightning's answer to Ctrl-C
                raise KeyboardInterrupt from None
            raise
        if self.config[command].trainer.profiler is not None:
            profiler = self.trainer.profiler  # type: ignore[attr-defined]
            print_rank_zero(profiler.summary())  # Lightning logs it, below the level that is shown

    def _try_out(self) -> None:
        """Train, validate and test a few batches, and write nothing."""
        self.trainer.fit(self.model, datamodule=self.datamodule)
        self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
        number = int(self.trainer.fast_dev_run)  # type: ignore[attr-defined]
        print_rank_zero(
            f"--trainer.fast_dev_run: {number} batch{'es' if number > 1 else ''} each of training, validation and test "
            "went through; no run folder was written"
        )

    def _require_own(self, file: Path) -> None:
        """Refuse a checkpoint of the run that was made from other images than its splits.csv tells."""
        images, own = read_checkpoint(file).get("images"), image_keys(self.datamodule)
        if images is None or not all(torch.equal(images[part].sort()[0], own[part].sort()[0]) for part in own):
            trained = int(torch.isin(own["test"], images["train"]).sum()) if images else "an unknown number"
            raise InputError(
                f"{file} was not made from the images and the split that {self.run.splits} tells ({trained} of the "
                "test images were trained on): one of the two was changed; put it back, or give another --run_dir"
            )

    def _evaluate(
        self, loop: Callable[..., object], first: Sequence[L.Callback] = (), last: Sequence[L.Callback] = ()
    ) -> None:
        """Have the best checkpoint evaluated, with callbacks that take what comes of it.

        Loggers get the figures of the best epoch from a callback, not those of one more epoch from Lightning.
        """
        trainer = self.trainer
        trainer.strategy.barrier()
        callbacks, loggers = trainer.callbacks, trainer.loggers  # type: ignore[attr-defined]
        trainer.callbacks = [*first, *callbacks, *last]  # type: ignore[attr-defined]
        trainer.loggers = [without_metrics(logger) for logger in loggers]
        best = str(self.run.best_checkpoint)
        try:
            loop(self.model, datamodule=self.datamodule, ckpt_path=best, weights_only=True, verbose=False)
        finally:
            trainer.callbacks, trainer.loggers = callbacks, loggers  # type: ignore[attr-defined]


def fit_command(args: list[str]) -> None:
    """Carry out `fit` and print what came of it; a run without a recipe takes that for one's own images.

    Args:
        args: As on the command line, the command first.
    """
    args = with_default_recipe(args)
    if run := train(args):
        print_outcome(run)


def train(args: list[str] | None = None) -> RunFolder | None:
    """Carry out `fit`, `validate` or `test` and return the run folder that was written.

    Args:
        args: As on the command line, the command first; sys.argv where left out.

    Raises:
        InputError: A setting, the data or the weights cannot be used.
    """
    try:
        with ExitStack() as held:
            cli = TrainingCLI(args, held)
            return cli.run if cli.recorded else None
    except _FinishedError as finished:
        return finished.run
    except MisconfigurationException as error:
        raise InputError(f"--trainer: {str(error).splitlines()[0]}") from None


def _listed(given: Any) -> list[Any]:
    """Return one of the trainer's flags that takes one object, or several, as a list."""
    if given is None:
        return []
    return list(given) if isinstance(given, Iterable) else [given]


class _FinishedError(Exception):
    def __init__(self, run: RunFolder) -> None:
        self.run = run


def _takes_weights(model: Namespace) -> bool:
    settings = model.get("init_args", {})
    named = all(name in settings for name in ("backbone", "weights", "weights_sha256"))
    return named and issubclass(import_part(model.class_path, "--model"), PretrainedClassifier)


def _without_best(run: RunFolder, resumed: bool) -> str:
    if resumed:
        return f"{run.best_checkpoint} is gone; give another --run_dir, or delete {run.path} to train it again"
    return f"nothing was trained in {run.path}: training ended before its first epoch did; give it more time"
