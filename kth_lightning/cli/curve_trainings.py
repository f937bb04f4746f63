"""The trainings of a learning curve: which images each is made from, and which are left to do."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass

from kth_lightning.cli.curve_workers import are_worth_it, side_by_side, train_quietly
from kth_lightning.data.catalogue import Catalogue
from kth_lightning.data.module import ImageData
from kth_lightning.data.shares import growing_shares, take_share
from kth_lightning.data.split import Split, make_split
from kth_lightning.data.split_table import ChangedImagesError, match_split, split_rows
from kth_lightning.errors import InputError
from kth_lightning.io.curve_folder import CurveFolder
from kth_lightning.io.progress import Progress
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import read_split, split_hashes, write_split
from kth_lightning.io.terminal import print_rank_zero

_FEWEST_SIZES = 4


@dataclass(frozen=True)
class Training:
    """Name one training.

    Attributes:
        size: Number of its size, from 1, the smallest.
        fold: Number of its fold, from 0.
        images: Number of its training images.
        images_a_class: The same for each class, on the average.
        run: Its folder, which has its splits.csv; with predictions.csv it is done.
    """

    size: int
    fold: int
    images: int
    images_a_class: float
    run: RunFolder

    @property
    def done(self) -> bool:
        """Tell whether it has ended."""
        return self.run.predictions.exists()


def plan_trainings(folder: CurveFolder, data: ImageData, sizes: int, folds: int, ignore_new: bool) -> list[Training]:
    """Draw folds and shares, and write the splits.csv of every training, those of all images first.

    The validation and test images of a fold are the same for all sizes.

    Args:
        folder: Of the curve; where it has begun, its images are found by their content.
        data: The images.
        sizes: Number of shares.
        folds: Number of folds.
        ignore_new: Leave out images that the curve did not begin with.

    Raises:
        InputError: There are too few images, or they are not those that the curve began with.
    """
    if sizes < _FEWEST_SIZES:
        raise InputError(f"--sizes {sizes}: give at least {_FEWEST_SIZES}")
    if folds < 2:
        raise InputError(f"--folds {folds}: give at least 2")
    catalogue = _own_images(folder, data.prepared.catalogue, ignore_new)
    if any(image.subset == "test" for image in catalogue.images):
        raise InputError(
            "the images have a test part of their own, and a learning curve tests every image once, over folds; "
            "give it the training part alone"
        )
    splits = [
        make_split(catalogue, data.val_size, data.test_size, data.split_seed, folds, fold) for fold in range(folds)
    ]
    classes = len(catalogue.class_names)
    shares = growing_shares(min(len(split.indices("train")) for split in splits) / classes, sizes)
    trainings = []
    for size, share in reversed(list(enumerate(shares, start=1))):
        for fold, whole in enumerate(splits):
            split = take_share(catalogue, whole, share, data.split_seed, fold)
            images, run = len(split.indices("train")), folder.run(fold, size)
            _settle(run, catalogue, split)
            trainings.append(Training(size, fold, images, images / classes, run))
    return trainings


def _own_images(folder: CurveFolder, catalogue: Catalogue, ignore_new: bool) -> Catalogue:
    """Return the images that a curve began with, in its order, or all of them."""
    begun = next((run.splits for run in folder.runs().values()), None)
    if begun is None:
        if ignore_new:
            raise InputError("--data.ignore_new goes with a learning curve that has begun; leave it out")
        return catalogue
    try:
        return match_split(catalogue, read_split(begun, ""), str(folder.path), ignore_new)[0]
    except ChangedImagesError as error:
        way = ", or give --data.ignore_new true to leave out what is new" if error.difference.only_new else ""
        raise InputError(
            f"{error}; give another --run_dir to start anew, or put back what it began with{way}"
        ) from None


def _settle(run: RunFolder, catalogue: Catalogue, split: Split) -> None:
    rows = split_rows(catalogue, split)
    if not run.splits.exists():
        write_split(rows, run.splits)
    elif split_hashes(read_split(run.splits, ""))["split"] != split_hashes(rows)["split"]:
        raise InputError(f"{run.splits} is not the split of this learning curve; give another --run_dir")


def train_all(
    trainings: Sequence[Training],
    train: Callable[[RunFolder], object],
    said: Callable[[int], str],
    accelerator: str | None,
) -> None:
    """Train what is left to do, and print a line for each size.

    Args:
        trainings: The largest first.
        train: Trains into a run folder that has a splits.csv.
        said: Says what a size has come to, given its number, when all its trainings are done.
        accelerator: As given to the trainer, where trainings may go side by side; then `train` can be pickled.

    Raises:
        InputError: A training fails.
    """
    total = sum(training.images for training in trainings)
    left = [training for training in trainings if not training.done]
    waiting = Counter(training.size for training in left)
    with Progress(None, "training", total=total, initial=total - sum(item.images for item in left)) as bar:

        def end(training: Training) -> None:
            bar.update(training.images)
            waiting[training.size] -= 1
            if not waiting[training.size]:
                print_rank_zero(f"{said(training.size)}; {_left(bar)}")

        for size in sorted({training.size for training in trainings} - waiting.keys(), reverse=True):
            print_rank_zero(said(size))
        several = accelerator is not None and are_worth_it(accelerator, total)
        # Those on all images come alone: they compute the features that all others find stored.
        alone = [training for training in left if not several or training.size == trainings[0].size]
        for training in alone:
            bar.set_postfix_str(f"{training.images_a_class:.3g} images a class, fold {training.fold + 1}")
            with _named(training):
                train_quietly(train, training.run)
            end(training)
        if others := left[len(alone) :]:
            bar.set_postfix_str("two side by side")
            with side_by_side() as pool:
                running = {pool.submit(train_quietly, train, training.run): training for training in others}
                for future in as_completed(running):
                    with _named(running[future]):
                        future.result()
                    end(running[future])


@contextmanager
def _named(training: Training) -> Iterator[None]:
    """Say of a failure which training it stopped."""
    try:
        yield
    except InputError as error:
        raise InputError(
            f"the training on {training.images_a_class:.3g} images a class of fold {training.fold + 1} failed: {error}"
        ) from None


def _left(bar: Progress) -> str:
    rate, total = bar.format_dict["rate"], bar.total or 0
    return "done" if bar.n >= total else f"{Progress.format_interval((total - bar.n) / rate)} left" if rate else "…"
