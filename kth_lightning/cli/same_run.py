"""What a run folder's run began with, and whether the run that is asked for is that one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from kth_lightning.cli.parser import Parser
from kth_lightning.cli.run_name import HARDWARE, PLACES, is_one_of
from kth_lightning.data.balance import named_balance
from kth_lightning.data.kept_groups import other_groups
from kth_lightning.data.module import ImageData
from kth_lightning.data.split_table import ChangedImagesError, Difference, misplaced
from kth_lightning.errors import InputError
from kth_lightning.io.flat_settings import flat_settings
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import read_split, split_hashes
from kth_lightning.io.terminal import print_rank_zero
from kth_lightning.models.origin import origin_digest
from kth_lightning.report.page import write_report

MakeImages = Callable[[Namespace], ImageData]
"""From data settings to images."""

_ANEW = "give another --run_dir, or delete this one to start anew"


@dataclass(frozen=True)
class Begun:
    """Hold what the run of a folder began with.

    Attributes:
        run: The folder.
        settings: Its config.yaml, flat.
        start: Its start.json.
    """

    run: RunFolder
    settings: dict[str, Any]
    start: dict[str, Any]

    @classmethod
    def read(cls, run: RunFolder) -> "Begun | None":
        """Read what a folder says; None where no run has begun there.

        Raises:
            InputError: The folder is a file, or a run in it is damaged.
        """
        if run.path.exists() and not run.path.is_dir():
            raise InputError(f"--run_dir {run.path} is a file; give a folder")
        if not run.config.exists():
            left = [file for file in (run.metrics, run.history, run.last_checkpoint) if file.exists()]
            if left:
                raise InputError(f"{run.config} is missing beside {left[0].name}; put it back, or {_ANEW}")
            return None
        try:
            written = yaml.safe_load(run.config.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            written = None
        if not isinstance(written, dict):
            raise InputError(f"{run.config} is damaged; {_ANEW}")
        if not run.splits.exists():
            raise InputError(f"{run.splits} is missing; put it back, or {_ANEW}")
        try:
            read_split(run.splits)
        except InputError:
            raise InputError(f"{run.splits} is damaged; put it back as it was, or {_ANEW}") from None
        settings = _defaults(written.get("data") or {}) | flat_settings(written)
        settings["data.balance"] = named_balance(settings.get("data.balance"))
        return cls(run, settings, run.read_start())

    @property
    def chosen_precision(self) -> str | None:
        """Return the precision that the hardware decided when the run began; None where a flag did."""
        return None if self.start.get("precision_given", True) else str(self.settings.get("trainer.precision"))

    @property
    def weights_sha256(self) -> str | None:
        """Return the hash of the pretrained weights; None where there are none."""
        return self.settings.get("model.init_args.weights_sha256")

    def require(self, asked: Mapping[str, Any], flag: str = "--run_dir", but: str | None = None) -> None:
        """Refuse other settings than the run's.

        Args:
            asked: The settings of the command, flat.
            flag: By which the run was given.
            but: A setting that may differ.

        Raises:
            InputError: A setting differs that makes another run.
        """
        asked = {**asked, "data.balance": named_balance(asked.get("data.balance"))}
        keys = (key for key in asked.keys() | self.settings.keys() if asked.get(key) != self.settings.get(key))
        differ = sorted(
            key for key in keys if key != but and not is_one_of(key, HARDWARE) and not self._is_place(key, asked)
        )
        path = self.run.path
        if "model.init_args.weights_sha256" in differ:
            hashes = (item.get("model.init_args.weights_sha256") for item in (asked, self.settings))
            ours, theirs = (f"those of the hash {item[:12]}" if item else "random ones" for item in hashes)
            raise InputError(
                f"{flag} {path} holds a run on weights that --model.weights does not give: {theirs} "
                f"({self.settings.get('model.init_args.weights')}), and it gives {ours}; give the run's weights to go "
                "on with it, or another --run_dir"
            )
        if differ == ["trainer.max_epochs"]:
            raise InputError(
                f"--run_dir {path} holds a run of --trainer.max_epochs {self.settings.get(differ[0])}, and "
                f"{asked.get(differ[0])} were asked for: a run keeps its length; give another --run_dir to train "
                f"anew, and with it --continue_from {path} to begin where this run ended, if its "
                "learning rate is constant"
            )
        if differ:
            key = differ[0]
            raise InputError(
                f"{flag} {path} holds a run with another --{key}: {self.settings.get(key)} there, {asked.get(key)} "
                "here; give another --run_dir, or the same settings to go on with that run"
            )
        self._require_split(asked.get("data.splits"))
        self._require_origin(asked.get("model.init_args.init_head_from"))

    def _is_place(self, key: str, asked: Mapping[str, Any]) -> bool:
        """Tell whether a setting only says where something lies whose content is compared."""
        if key == "model.init_args.weights" and not asked.get("model.init_args.weights_sha256"):
            return False
        if key in ("data.splits", "model.init_args.init_head_from"):
            return None not in (asked.get(key), self.settings.get(key))
        return is_one_of(key, PLACES)

    def _require_split(self, splits: str | None) -> None:
        """Refuse a split that is asked for and is not the run's."""
        if splits is None or (splits == self.settings.get("data.splits") and not Path(splits).expanduser().exists()):
            return
        asked, own = (split_hashes(read_split(Path(file).expanduser())) for file in (splits, self.run.splits))
        if asked["split"] != own["split"]:
            raise InputError(
                f"--run_dir {self.run.path} holds a run with another split than --data.splits {splits}; leave the flag "
                "out to go on with the run's own split, or give another --run_dir"
            )

    def _require_origin(self, file: str | None) -> None:
        """Refuse another head to start from than the run's; one that is gone is not needed any more."""
        began_with = (self.start.get("origin") or {}).get("sha256")
        if file is None or began_with is None or not Path(file).exists():
            return
        if origin_digest(file) != began_with:
            raise InputError(
                f"--run_dir {self.run.path} holds a run that started from another head than "
                f"--model.init_head_from {file} holds now; put that head back, or {_ANEW}"
            )


def _defaults(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data settings of which a run does not tell, since flags are new since it was written."""
    parser = Parser()
    parser.add_class_arguments(ImageData, "data", skip={"seed"})  # that is --seed_everything's
    new = {name: value for name, value in parser.get_defaults()["data"].as_dict().items() if name not in told}
    return flat_settings({"data": new}) if new else {}


def with_split(data: Namespace, run: RunFolder) -> Namespace:
    """Return data settings by which images keep the part that they have in a run's splits.csv."""
    settings = data.clone()
    settings.splits, settings.num_folds, settings.fold = str(run.splits), None, 0
    return settings


def make_images(data: Namespace) -> ImageData:
    """Make the images that data settings mean."""
    parser = Parser()
    parser.add_class_arguments(ImageData, "data")
    images: ImageData = parser.instantiate(Namespace(data=data)).data
    return images


def find_difference(run: RunFolder, data: Namespace, make: MakeImages = make_images) -> Difference:
    """Find out what has become of the images that a run began with.

    Args:
        run: Its splits.csv tells them.
        data: Data settings that say where images are now.
        make: Makes images of such settings.
    """
    images = make(with_split(data, run))
    try:
        catalogue, split = images.catalogue, images.split
    except ChangedImagesError as error:
        return error.difference
    drawn = data.splits is not None or data.get("num_folds") is not None
    return Difference(
        moved=[] if drawn else misplaced(catalogue, split),
        regrouped=other_groups(run.read_start().get("groups"), catalogue.images),
    )


def require_images(run: RunFolder, data: Namespace, make: MakeImages) -> None:
    """Refuse other images than those that a run began with.

    Args:
        run: Its splits.csv tells them.
        data: Data settings that say where images are now.
        make: Makes images of such settings.

    Raises:
        InputError: Images are new, gone, changed, relabelled, or put into another part of the split or other groups.
    """
    difference = find_difference(run, data, make)
    if not difference:
        return
    raise InputError(
        f"{made_from_others(run, difference, data.corrections)}; to start anew, give another --run_dir or delete this "
        f"one; to go on with the run's own images and split, {way_on(difference)}"
    )


def made_from_others(run: RunFolder, difference: Difference, corrections: str | None) -> str:
    """Say what has become of a run's images, for a command that is given these corrections of their labels."""
    state = " is finished and" if run.finished else ""
    return f"{run.path}{state} was made from other images: {difference}{_other_corrections(run, corrections)}"


def _other_corrections(run: RunFolder, corrections: str | None) -> str:
    """Say that a run began with corrections, or without, where a command does not; the images may differ for that."""
    try:
        begun = Begun.read(run)
    except InputError:  # of a damaged run, which a comparison puts out of the way
        begun = None
    own = begun.settings.get("data.corrections") if begun else corrections
    if (own is None) == (corrections is None):
        return ""
    return f"; it began {'without' if own is None else 'with'} --data.corrections"


def way_on(difference: Difference) -> str:
    """Say how a run can go on with its own images."""
    back = "" if difference.only_new else "put back what it began with"
    leave = "give --data.ignore_new true, which leaves out what is new" if difference.new else ""
    return " and ".join(part for part in (back, leave) if part)


def has_begun(run: RunFolder) -> bool:
    """Tell whether a folder holds a run, whole or damaged."""
    return any(file.exists() for file in (run.config, run.metrics, run.history, run.last_checkpoint))


def is_finished(run: RunFolder) -> bool:
    """Tell whether a run was finished before, and say so, or that it goes on.

    Raises:
        InputError: Its figures are damaged.
    """
    if not run.finished:
        print_rank_zero(f"going on with the run in {run.path}")
        return False
    metrics = run.read_metrics()
    try:
        for figure in ("value", "low", "high"):
            float(metrics["test"]["acc"][figure])
        split = metrics["hashes"]["split"]
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{run.metrics} is damaged; delete it and repeat the command, which tests anew") from None
    if split != split_hashes(read_split(run.splits))["split"]:
        raise InputError(f"{run.splits} is not the split of {run.metrics}; put it back, or {_ANEW}")
    if not run.report.exists():
        write_report(run.path)
    print_rank_zero(f"{run.path} is finished; delete it to train it again")
    return True
