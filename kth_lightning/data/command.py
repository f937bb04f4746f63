"""The verb `prepare`."""

from kth_lightning.data.module import PictureData
from kth_lightning.parser import Parser

_ELSEWHERE = {
    "image_size", "interpolation", "batch_size", "val_size", "test_size", "split_seed", "splits", "num_folds", "fold",
    "augmentation", "augmentation_seed", "views", "balance", "seed",
}  # fmt: skip


def prepare_command(words: list[str]) -> None:
    """Fetch and read a source's pictures, write catalogue.csv and audit.csv, and print the summary.

    Args:
        words: The command line behind `prepare`.

    Raises:
        InputError: The pictures cannot be used.
    """
    parser = Parser(
        prog="python -m kth_lightning prepare",
        description="Fetch the pictures, read each one once, and report which are unreadable or stand there twice.",
    )
    parser.add_class_arguments(PictureData, "data", skip=set(_ELSEWHERE))
    print(parser.instantiate_classes(parser.parse_args(words)).data.prepared.summary)
