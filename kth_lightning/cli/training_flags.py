"""The flags of `fit`."""

import os
from typing import Literal

import torch
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from kth_lightning.cli.allocation import keep_freed_memory
from kth_lightning.cli.parser import Parser
from kth_lightning.cli.quiet import quiet_lightning
from kth_lightning.cli.settings import LINKS, check_seed
from kth_lightning.cli.trainer_numbers import tell_counts_from_shares
from kth_lightning.data.module import ImageData
from kth_lightning.models import Classifier

TRAINER_DEFAULTS = {
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
    "enable_model_summary": False,
    "enable_autolog_hparams": False,
}
"""What Lightning's trainer has otherwise, in every command that has one."""

_FIT = "Train a classifier, test its best checkpoint on images that it has not seen, and write a report."

tell_counts_from_shares()


class TrainingParser(Parser, LightningArgumentParser):
    """Parse as Lightning's does, with the sentences of `Parser`."""


class TrainingFlags(LightningCLI):
    """Parse the flags; what they mean is for a subclass.

    Args:
        args: As on the command line, the command first; sys.argv where left out; or the settings by name.
        command: Whose flags they are. Any other than `fit` stands not among the words, and nothing is run for it.
        description: Of the command, for its help.
    """

    def __init__(self, args: ArgsType, command: str = "fit", description: str = _FIT) -> None:
        keep_freed_memory()
        if not torch.cuda.is_available():
            # Lightning sets it; torch's optimisers would then look for a driver's library at every step.
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
        quiet_lightning()
        page = {"prog": f"python -m kth_lightning {command}", "description": description}
        super().__init__(
            Classifier,
            ImageData,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={"max_epochs": 100, **TRAINER_DEFAULTS},
            parser_kwargs={command: page} if command == "fit" else page,
            run=command == "fit",
            subclass_mode_model=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_class=TrainingParser,
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Offer what makes sense for a classifier; `fit` resumes by its run folder, not by a checkpoint's path."""
        return {"fit": {"model", "datamodule", "weights_only", "train_dataloaders", "val_dataloaders", "ckpt_path"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder and early stopping, and have the model take from the data what it must agree with."""
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Folder for the results; runs/<model>-<hash of the settings> by default. An interrupted run in it is "
            "continued, a finished one is left as it is.",
        )
        parser.add_argument(
            "--continue_from",
            type=str | None,
            default=None,
            help="Run folder of the same settings with another --trainer.max_epochs: begin where that run ended, "
            "with the same result as from the first epoch. Only for a constant learning rate.",
        )
        parser.add_argument(
            "--monitor",
            type=Literal["val/loss", "val/loss_calibrated"],
            default="val/loss",
            help="What decides which epoch is best, lower being better: the validation loss, or the validation loss "
            "after temperature scaling.",
        )
        parser.add_argument(
            "--patience",
            type=int,
            default=10,
            help="Stop training after this many validations without a lower --monitor; there is one an epoch, unless "
            "--trainer.val_check_interval or check_val_every_n_epoch says otherwise.",
        )
        parser.add_argument(
            "--ema_decay",
            type=float | None,
            default=None,
            help="Validate and keep an exponential moving average of the weights, with this decay, instead of the "
            "weights.",
        )
        parser.add_argument(
            "--store_maps_before",
            type=int,
            default=0,
            help="For a FeatureHead: also store the feature maps that enter this many last stages of the backbone, "
            "so that a later run that trains those stages is faster. It does not change this run.",
        )
        for name in LINKS:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Refuse a seed that numpy would not take, before it is given one."""
        super().parse_arguments(parser, args)
        check_seed(self.config.get(str(self.config.get("subcommand")), self.config).seed_everything)
