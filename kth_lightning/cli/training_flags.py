"""The flags of `fit`, `validate` and `test`."""

import os
from typing import Literal

import torch
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from kth_lightning.cli.allocation import keep_freed_memory
from kth_lightning.cli.parser import Parser
from kth_lightning.cli.quiet import quiet_lightning
from kth_lightning.cli.settings import LINKS, check_seed
from kth_lightning.data.module import ImageData
from kth_lightning.models import Classifier

COMMANDS = {
    "fit": "Train one model into a run folder, then test its best checkpoint.",
    "validate": "Evaluate a checkpoint, given with --ckpt_path, on the validation images.",
    "test": "Evaluate a checkpoint, given with --ckpt_path, on the test images.",
}


class TrainingFlags(LightningCLI):
    """Parse the flags; what they mean is for a subclass.

    Args:
        args: As on the command line, the command first; sys.argv where left out; or the settings by name.
    """

    def __init__(self, args: ArgsType) -> None:
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
        # Lightning's own lets the checkpoint's settings win over the command line without a word (issue 21455),
        # and has no public method or flag against that; tests/test_private_names.py watches the name.
        pass
