"""The flags of `test` and `validate`, and what they take from a configuration or from the checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import yaml
from jsonargparse import Namespace

from kth_lightning import __version__
from kth_lightning.cli.checkpoint_flags import FilePath, import_model_class
from kth_lightning.cli.config_file import check_configs, named_configs
from kth_lightning.cli.parser import Parser
from kth_lightning.cli.training_flags import TRAINER_DEFAULTS
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import Classifier

_TEXTS = {
    "test": "Evaluate a checkpoint on test images: those of its own run, or new ones that --data.root or another flag "
    "of the data names, all of them.",
    "validate": "Evaluate a checkpoint on the validation images of its own run, or on new ones.",
}
_PLACES = ("source", "root", "test_root", "archive", "table", "sample_size", "sample_sites")
_OF_MODEL = ("image_size", "interpolation", "resize", "tta_flip")


class EvaluationFlags:
    """Parse the command line of `test` or `validate`.

    Args:
        command: "test" or "validate".
        argv: The words behind it.

    Attributes:
        command: As given.
        options: What was asked for.
        whole: Whether every image is evaluated, and not the part of a split.
        model_class: The checkpoint's class, where that comes from outside kth_lightning and is trusted.

    Raises:
        InputError: A word or a file cannot be used.
    """

    def __init__(self, command: str, argv: Sequence[str]) -> None:
        self.command = command
        self._words = [word.partition("=")[0] for word in argv]
        if wrong := [word for word in self._words if word == "--model" or word.startswith("--model.")]:
            raise InputError(f"{wrong[0]}: a checkpoint says which model it holds; leave it out")
        check_configs(argv)
        config: dict[str, Any] = {}
        for file in named_configs(argv):
            config |= read_config(file)
        parser = self._parser(config)
        options = parser.parse_args([*argv])
        if options.ckpt_path is None:
            raise InputError("--ckpt_path is missing; give a run's checkpoints/best.ckpt")
        run = RunFolder(Path(options.ckpt_path).absolute().parent.parent)
        self.whole = options.images == "whole"
        own = read_config(run.config) if run.config.is_file() else {}
        if not config and not self._places():
            config = _of_run(options.ckpt_path, run, own)
            parser = self._parser(config)
            options = parser.parse_args([*argv])
        elif not config and own.get("trainer"):
            options.trainer.precision = options.trainer.precision or own["trainer"].get("precision")
        if options.images is None:
            self.whole = not config
        self._parser_made, self.options = parser, options
        path = (config.get("model") or {}).get("class_path")
        trusted = path if path and not path.startswith("kth_lightning.") else None
        self.model_class = import_model_class(options.model_class or trusted)

    def _places(self) -> list[str]:
        """List the flags that say where images are."""
        return [word for word in self._words if word.removeprefix("--data.").split(".")[0] in _PLACES]

    def _parser(self, config: dict[str, Any]) -> Parser:
        parser = Parser(prog=f"python -m kth_lightning {self.command}", description=_TEXTS[self.command])
        parser.add_argument("--ckpt_path", type=FilePath, default=None, help="A finished run's checkpoints/best.ckpt.")
        parser.add_argument(
            "--config",
            type=str | None,
            default=None,
            help="config.yaml of a run or of an evaluation: its images, its split and its trainer are taken.",
        )
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Folder to write the evaluation into, as a run's; runs/<command>-<hash of the settings> by default.",
        )
        parser.add_argument(
            "--images",
            type=Literal["whole", "split"] | None,
            default=None,
            help="whole: evaluate all images, or those that the source prescribes for this. split: evaluate the part "
            "of a split that the data settings draw. Default: split with --config, whole without.",
        )
        parser.add_argument(
            "--model_class",
            type=str | None,
            default=None,
            help="Import path of the checkpoint's class, such as mine.MyNet, where that is not one of kth_lightning's: "
            "its code is run.",
        )
        parser.add_class_arguments(ImageData, "data")
        parser.add_class_arguments(L.Trainer, "trainer", fail_untyped=False, instantiate=False, sub_configs=True)
        defaults = {f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()}
        for group in ("data", "trainer"):
            defaults |= {f"{group}.{name}": value for name, value in (config.get(group) or {}).items()}
        defaults |= {name: config[name] for name in ("ckpt_path", "images") if config.get(name)}
        try:
            parser.set_defaults(defaults)
        except (KeyError, TypeError, ValueError) as error:
            parser.error(" ".join(str(error).split()))
        return parser

    def take_from(self, model: Classifier) -> None:
        """Have images read as the classifier takes them.

        Raises:
            InputError: A flag asks for something else.
        """
        for name in _OF_MODEL:
            asked, own = self.options.data[name], getattr(model, name)
            if f"--data.{name}" in self._words and asked != own:
                raise InputError(f"--data.{name} {asked}: the checkpoint was trained with {own}; leave it out")
            self.options.data[name] = own
        if self.options.data.value_range is None:  # and where it has none, not that of other images either
            self.options.data.value_range = model.value_range

    def instantiate(self) -> Namespace:
        """Make the images, and what the trainer is made with.

        Raises:
            InputError: They cannot be made with these settings.
        """
        return self._parser_made.instantiate(self.options)

    def settings(self) -> dict[str, Any]:
        """Return all settings, but where the folder is."""
        settings = yaml.safe_load(self._parser_made.dump(self.options, skip_unset=False))
        for name in ("config", "run_dir", "model_class"):
            settings.pop(name, None)
        return settings | {"images": "whole" if self.whole else "split"}

    def text(self, checkpoint: dict[str, Any]) -> str:
        """Return the text of config.yaml, which alone repeats the evaluation and names the checkpoint's model."""
        model = {"class_path": checkpoint["class_path"], "init_args": checkpoint["hyper_parameters"]}
        model["init_args"] = {name: value for name, value in model["init_args"].items() if name != "class_names"}
        settings = self.settings() | {"model": model}
        return f"# kth_lightning {__version__}\n{yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)}"


def read_config(file: Path) -> dict[str, Any]:
    """Read a configuration, a model's name in it as its class path.

    Raises:
        InputError: The file is none.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or "no YAML text"
        raise InputError(f"--config {file} cannot be read ({reason}); give the config.yaml of a run") from None
    if not isinstance(content, dict):
        raise InputError(f"--config {file} has no settings; give the config.yaml of a run")
    model = content.get("model")
    return content | ({"model": {"class_path": model}} if isinstance(model, str) else {})


def _of_run(ckpt_path: str, run: RunFolder, own: dict[str, Any]) -> dict[str, Any]:
    """Return the settings by which a run's own images and split are evaluated.

    Raises:
        InputError: The checkpoint lies in no run folder.
    """
    if not own or not run.splits.is_file():
        raise InputError(
            f"--data.root is missing, and {ckpt_path} is in no run folder that lists the images of its run; give the "
            "images to evaluate it on"
        )
    data = (own.get("data") or {}) | {"splits": str(run.splits), "num_folds": None, "fold": 0}
    return own | {"data": data}
