"""The flags of `learning_curve`: its own, and those of `fit`."""

from collections.abc import Sequence
from typing import Any

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from kth_lightning.cli.settings import check_settings
from kth_lightning.cli.training_flags import TrainingFlags
from kth_lightning.errors import InputError
from kth_lightning.io.flat_settings import flat_settings

_OWN = ("--folds", "--sizes", "--run_dir")
_DESCRIPTION = "Train on growing shares of the images, and say what more images would give."
_OURS = ("data.splits", "data.num_folds", "continue_from", "trainer.fast_dev_run")
"""What is decided here, and left out by people."""

_LIGHT = ("--trainer.logger", "false", "--trainer.enable_progress_bar", "false", "--trainer.devices", "1")


class CurveFlags(TrainingFlags):
    """Parse the command line of `learning_curve`, and make nothing of it: every training makes its own.

    Args:
        argv: The words behind the command.

    Raises:
        InputError: A word or a file cannot be used.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self.argv = list(argv)
        super().__init__(self.argv, "learning_curve", _DESCRIPTION)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the numbers of sizes and of folds."""
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--sizes", type=int, default=6, help="Number of shares of the training images, each half of the next."
        )
        parser.add_argument(
            "--folds", type=int, default=5, help="Number of folds; every image is tested once at each size."
        )

    def before_instantiate_classes(self) -> None:
        """Refuse what cannot be meant."""
        for name in _OURS:
            if self.config.get(name) not in (None, False):
                raise InputError(f"--{name}: learning_curve draws folds and shares itself; leave it out")
        if str(self.config.trainer.devices) not in ("auto", "1") or self.config.trainer.num_nodes != 1:
            raise InputError("--trainer.devices: learning_curve trains on one device; give 1, or leave it out")
        check_settings(self.config)

    def instantiate_classes(self) -> None:
        """Make nothing."""

    def settings(self) -> dict[str, Any]:
        """Return what makes the curve, flat."""
        text = self.parser.dump(self.config, skip_unset=False, skip_link_targets=True)
        settings = yaml.safe_load(text)
        for name in ("config", "run_dir", "continue_from", "store_maps_before"):
            settings.pop(name, None)
        return flat_settings(settings)

    def words_of_fit(self) -> list[str]:
        """Return the command line of `fit` by which each share is trained, but for its run folder."""
        groups: list[list[str]] = []
        for word in self.argv:
            if word.startswith("-") and not word[1:2].isdigit():
                groups.append([])
            groups[-1].append(word)
        left_out = (*_OWN, "--trainer.logger", "--trainer.enable_progress_bar", "--trainer.devices")
        kept = [group for group in groups if not _is_one(group[0].partition("=")[0], left_out)]
        return ["fit", *(word for group in kept for word in group), *_LIGHT]


def _is_one(flag: str, flags: Sequence[str]) -> bool:
    return any(flag == item or flag.startswith(f"{item}.") for item in flags)
