"""The callback that keeps what a run is made from."""

from typing import Any

import lightning as L

from kth_lightning.callbacks.device_name import device_name
from kth_lightning.callbacks.image_data import image_data
from kth_lightning.data.kept_groups import describe_groups
from kth_lightning.data.split_table import split_rows
from kth_lightning.errors import InputError
from kth_lightning.evaluation.seen_images import Origin, file_keys, image_keys
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import rows_digest, write_split
from kth_lightning.io.terminal import print_rank_zero


class RunInputs(L.Callback):
    """Write configuration and split into the run folder, and with the weights which images they were made from.

    Args:
        run: The folder.
        config: Text of config.yaml.
        start: What start.json tells beside it.
        origin: What the run started from, where it is another run's checkpoint.
    """

    def __init__(self, run: RunFolder, config: str, start: dict[str, Any], origin: Origin | None = None) -> None:
        self.run = run
        self.config = config
        self.start = start
        self.origin = origin

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write what the run is made from, before the first step, unless it has begun before.

        Raises:
            InputError: The processes of the run see other images each.
        """
        if stage != "fit":
            return
        data = image_data(trainer)
        rows = split_rows(data.catalogue, data.split)
        ours = rows_digest(rows)
        same = trainer.strategy.broadcast(ours) == ours
        if not trainer.strategy.reduce_boolean_decision(same, all=True):
            raise InputError(
                "the processes of this run do not see the same images: give all of them the same files under the same "
                "names, on a disk that they share"
            )
        if not trainer.is_global_zero:
            return
        device = device_name(trainer)
        if self.run.config.exists():
            began_on = self.run.read_start().get("device", device)
            if began_on != device:
                print_rank_zero(
                    f"the run began on {began_on} and continues on {device}: images, batches, order and epochs stay "
                    "the same, and the figures differ by rounding"
                )
            return
        if not self.run.splits.exists():
            write_split(rows, self.run.splits)
        self.run.write_start(self.start | {"device": device, "groups": describe_groups(data.catalogue.images)})
        # Last, since a folder with a configuration counts as a run.
        write_atomically(self.config, self.run.config)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep with the weights which images they were made from."""
        data = image_data(trainer)
        checkpoint["images"] = image_keys(data)
        checkpoint["files"] = file_keys(data, checkpoint["images"])
        if self.origin is not None:
            checkpoint["inherited"] = self.origin.inherited
