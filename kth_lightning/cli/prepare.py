"""The command `prepare`."""

from kth_lightning.cli.parser import Parser
from kth_lightning.data.module import ImageData
from kth_lightning.io.terminal import printable

_ELSEWHERE = {
    "image_size", "interpolation", "resize", "batch_size", "val_size", "test_size", "split_seed", "splits", "num_folds",
    "fold", "augmentation", "augmentation_seed", "views", "balance", "balance_beta", "seed",
}  # fmt: skip


def prepare_command(argv: list[str]) -> None:
    """Fetch and read a source's images, write catalogue.csv and audit.csv, and print the summary.

    Args:
        argv: The command line behind `prepare`.

    Raises:
        InputError: The images cannot be used.
    """
    parser = Parser(
        prog="python -m kth_lightning prepare",
        description="Read every image once, and say which cannot be used and which are duplicates.",
    )
    parser.add_class_arguments(ImageData, "data", skip=set(_ELSEWHERE))
    print(printable(parser.instantiate(parser.parse_args(argv)).data.prepared.summary))
