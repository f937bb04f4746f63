"""The data module: from a source of images to batches on the device."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from kth_lightning.data.augmentation.augmentation import Augmentation, augmented
from kth_lightning.data.augmentation.choose import NONE, make_augmentation
from kth_lightning.data.augmentation.identity import augmentation_identity
from kth_lightning.data.augmentation.presets import PresetAugmentation
from kth_lightning.data.balance import DEFAULT_BETA, Balance, class_factors, read_balance
from kth_lightning.data.batch import Batch
from kth_lightning.data.catalogue import Catalogue
from kth_lightning.data.dataset import FeatureDataset, PixelDataset, only
from kth_lightning.data.found_boxes import MIN_CONFIDENCE, WithoutBox
from kth_lightning.data.groups import group_images, read_group_by
from kth_lightning.data.images import MAX_PIXELS, ReadOptions
from kth_lightning.data.pixels import open_pixels
from kth_lightning.data.prepare import Prepared, prepare
from kth_lightning.data.sampler import BalancedOrder, BatchShares, EpochOrder
from kth_lightning.data.sources.boxed import BoxedSource, OnlyBoxes
from kth_lightning.data.sources.choose import make_source
from kth_lightning.data.sources.kth import KthSource
from kth_lightning.data.sources.source import Source
from kth_lightning.data.split import Part, Size, Split, make_split
from kth_lightning.data.split_summary import describe_split
from kth_lightning.data.split_table import ChangedImagesError, match_split
from kth_lightning.data.square import INTERPOLATIONS, MAX_SIZE, MIN_SIZE, RESIZES, SQUASH, Square
from kth_lightning.errors import InputError
from kth_lightning.io.cache_folder import cache_folder
from kth_lightning.io.kept_settings import KeepsSettings
from kth_lightning.io.split_file import read_split
from kth_lightning.stores.resident import resident
from kth_lightning.stores.store import CLEAN, MIRRORED, Store

_MAX_SAMPLE = 1_000_000  # of which the drawing takes a day
_MAX_VIEWS = 10_000
_MAX_NUMBER = 2**32 - 1


class ImageData(KeepsSettings, LightningDataModule):
    """Images: where they are, how they are split, and how they are augmented.

    It works with any `Trainer(use_distributed_sampler=False)`: every process takes its share of each batch by itself.
    Training images are seen in views: view 0 is the clean image, every other view one draw of the augmentation,
    which depends on the image and the view alone.

    Args:
        source: Where the images come from: "sample" (drawn animals), "kth" (KTH-ANIMALS), "folder" or "table" (your own
            images), or a `Source`; on the command line its class, such as mine.MySource. Left out, it follows from the
            other flags: `archive` means "kth", `root` "folder", `table` "table", none of them "sample".
        archive: For "kth": path or URL of the archive; the published URL where it is left out.
        root: For "folder": a folder of class folders, or of train, valid and test with class folders each.
        test_root: For "folder": another folder of class folders, whose images are added to the test images.
        class_level: For "folder": 1 where the folders in `root` are the classes, 2 where the classes are one level
            deeper; found out where it is left out.
        table: For "table": a CSV or Parquet file with the columns path and label, and perhaps split, group, mask and
            box.
        boxes: Boxes of the images, each of them an example with the image's label: MegaDetector's JSON, whose animals
            count, or a CSV or Parquet file with the columns path and box.
        min_box_confidence: Lowest confidence at which a detection counts: that of MegaDetector's JSON, or the column
            conf of a table.
        without_box: What becomes of an image without a box in `boxes` or in the column box of `table`: "whole" takes
            all of it, "leave_out" leaves it out.
        sample_size: For "sample": number of images to draw.
        sample_sites: For "sample": number of places at which they are drawn, each with a background, a light, a camera
            and a mixture of animals of its own; 0 for none.
        group_by: What belongs together, and always stays in one part and fold, if the source names no groups:
            "parent:1" (images whose folder has the same name; "parent:2", the folder above, and so on),
            "regex:PATTERN" (the same match in the path, or in the pattern's parentheses) or "burst:60" (images of a
            folder, whatever the class, with at most 60 seconds from one to the next, by EXIF's DateTimeOriginal).
        ignore_groups: Split as if there were no groups; the figures are then too good.
        corrections: A suspects.csv of `compare` with your decisions on labels in its column `decision`: keep,
            relabel (as the column `suggested` says) or drop.
        cache_dir: Folder for what is computed once and used again; your user's cache folder where it is left out.
        image_size: Side in pixels of the square images that models see.
        interpolation: How images are resized: "bilinear", "bicubic" or "nearest".
        resize: How an image becomes a square: "squash" (stretched to it), "letterbox" (whole, in its own shape, between
            bars of ImageNet's mean colour) or "crop" (its middle in its own shape, as much as fills the square; of
            boxes the commands make "letterbox").
        value_range: The values that become black and white in images deeper than 8 bits, such as [0, 4095]; the lowest
            and highest of all images where it is left out.
        max_pixels: Most pixels to decode of one image, of a JPEG at the reduced scale that is enough; a larger
            one is left out.
        batch_size: Images per step, over all devices together.
        val_size: Number (180) or share (0.15) of images for validation; 180 for "kth" and 0.15 otherwise by default.
        test_size: The same for testing; 100 for "kth" and 0.15 otherwise by default.
        split_seed: Random seed of the split, and of nothing else.
        splits: An earlier run's splits.csv to use again, instead of a new split. Its images are found by their content.
        ignore_new: Leave out images that `splits` does not list, or that a run did not begin with.
        num_folds: Number of folds for cross-validation; the test images are then one fold.
        fold: Which fold is tested, from 0.
        augmentation: Random changes to training images: "none", "flip", "blog", "standard" or "strong", or an
            `Augmentation`; on the command line its class, such as mine.MyAugment.
        augmentation_seed: Random seed of what a named augmentation draws.
        views: Number of augmented versions (views) of every training image, one for each epoch in turn; 0 for the
            images as they are; left out, every epoch draws new ones. With a number, the features of a frozen network
            are computed once and kept.
        tta_flip: In validation, test and prediction, average the logits of every image with those of its mirror image.
        balance: How training makes up for classes of different sizes: "none"; "inverse" or "effective", by a factor in
            the training loss, the inverse of the number of the class's training images or of their effective number
            (`balance_beta`), 1 on the average over images; "sampling", by epochs of the same length in which every
            class is seen equally often. Validation and test count every image alike. True and false, as until
            0.3.0, are "inverse" and "none".
        balance_beta: For "effective": from 0, where all factors are 1, to below 1, where they near the inverse numbers;
            0.99 where it is left out.
        seed: Random seed of the order of images.

    Raises:
        InputError: A setting does not make sense, or the images cannot be used.
    """

    def __init__(
        self,
        source: Source | str | None = None,
        archive: str | None = None,
        root: str | None = None,
        test_root: str | None = None,
        class_level: Literal[1, 2] | None = None,
        table: str | None = None,
        boxes: str | None = None,
        min_box_confidence: float = MIN_CONFIDENCE,
        without_box: WithoutBox = "whole",
        sample_size: int = 540,
        sample_sites: int = 0,
        group_by: str | None = None,
        ignore_groups: bool = False,
        corrections: str | None = None,
        cache_dir: str | None = None,
        image_size: int = 224,
        interpolation: str = "bilinear",
        resize: str = SQUASH,
        value_range: list[float] | None = None,
        max_pixels: int = MAX_PIXELS,
        batch_size: int = 20,
        val_size: int | float | None = None,
        test_size: int | float | None = None,
        split_seed: int = 0,
        splits: str | None = None,
        ignore_new: bool = False,
        num_folds: int | None = None,
        fold: int = 0,
        augmentation: Augmentation | str = NONE,
        augmentation_seed: int = 0,
        views: int | None = None,
        tta_flip: bool = False,
        balance: Balance | bool = "none",
        balance_beta: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for flag, value, least, most in (
            ("batch_size", batch_size, 1, _MAX_NUMBER),
            ("image_size", image_size, MIN_SIZE, MAX_SIZE),
            ("sample_size", sample_size, 1, _MAX_SAMPLE),
            ("sample_sites", sample_sites, 0, _MAX_SAMPLE),
            ("max_pixels", max_pixels, 1, _MAX_NUMBER),
            ("views", CLEAN if views is None else views, 0, _MAX_VIEWS),
            ("split_seed", split_seed, 0, _MAX_NUMBER),
            ("augmentation_seed", augmentation_seed, 0, _MAX_NUMBER),
            ("seed", seed, 0, _MAX_NUMBER),
        ):
            if not least <= value <= most:
                raise InputError(f"--data.{flag} {value}: give a whole number from {least} to {most}")
        if not 0 <= min_box_confidence <= 1:
            raise InputError(f"--data.min_box_confidence {min_box_confidence}: give a number from 0 to 1")
        if interpolation not in INTERPOLATIONS:
            raise InputError(f"--data.interpolation {interpolation}: give one of {', '.join(INTERPOLATIONS)}")
        if resize not in RESIZES:
            raise InputError(f"--data.resize {resize}: give one of {', '.join(RESIZES)}")
        if value_range is not None and (len(value_range) != 2 or not value_range[0] < value_range[1]):
            raise InputError(f"--data.value_range {value_range}: give two numbers, the lower first, such as [0, 4095]")
        if splits is not None and num_folds is not None:
            raise InputError("--data.splits and --data.num_folds do not go together; leave one of them out")
        if ignore_new and splits is None:
            raise InputError("--data.ignore_new goes with --data.splits, or with a run that has begun; leave it out")
        if fold and num_folds is None:
            raise InputError(f"--data.fold {fold} needs --data.num_folds, the number of folds")
        self.source = make_source(source, archive, root, test_root, class_level, table, sample_size, sample_sites)
        few: tuple[Size, Size] = (180, 100) if isinstance(self.source, KthSource) else (0.15, 0.15)
        if boxes is not None:
            self.source = BoxedSource(self.source, Path(boxes), min_box_confidence, without_box)
        elif min_box_confidence != MIN_CONFIDENCE:
            raise InputError(
                f"--data.min_box_confidence {min_box_confidence} goes with --data.boxes; leave it at {MIN_CONFIDENCE}"
            )
        elif without_box == "leave_out":
            self.source = OnlyBoxes(self.source)
        self.corrections = None if corrections is None else Path(corrections).expanduser()
        self.cache_dir = cache_folder(cache_dir)
        if group_by is not None:
            read_group_by(group_by)
        self.group_by = group_by
        self.ignore_groups = ignore_groups
        self.image_size = image_size
        self.interpolation = interpolation
        self.resize = resize
        self.options = ReadOptions((value_range[0], value_range[1]) if value_range else None, max_pixels)
        self.batch_size = batch_size
        self.val_size = few[0] if val_size is None else val_size
        self.test_size = few[1] if test_size is None else test_size
        self.split_seed = split_seed
        self.splits = splits
        self.ignore_new = ignore_new
        self.num_folds = num_folds
        self.fold = fold
        self.augmentation = make_augmentation(augmentation, augmentation_seed)
        # Asked for before it is used, which may change what it is told apart by.
        self.augmentation_identity = None if self.augmentation is None else augmentation_identity(self.augmentation)
        self.views = views
        self.tta_flip = tta_flip
        self.balance = read_balance(balance, balance_beta)
        self.balance_beta = DEFAULT_BETA if balance_beta is None else balance_beta
        self.seed = seed
        self.find_features: Callable[[Part], Store | None] | None = None

    @property
    def square(self) -> Square:
        """Return what models see of an image."""
        return Square(self.image_size, self.interpolation, self.resize)

    @cached_property
    def prepared(self) -> Prepared:
        """Fetch the images, and read every one, where that was not done before."""
        return self.grouped(prepare(self.source, self.cache_dir, self.options, self.corrections))

    def grouped(self, prepared: Prepared) -> Prepared:
        """Put prepared images into groups, as the settings say."""
        catalogue, remarks = group_images(prepared.catalogue, self.group_by, self.ignore_groups)
        return replace(
            prepared,
            catalogue=catalogue,
            remarks=[*prepared.remarks, *remarks],
            summary="\n".join([prepared.summary, *remarks]),
        )

    @cached_property
    def _divided(self) -> tuple[Catalogue, Split]:
        return self.divide()

    def divide(self) -> tuple[Catalogue, Split]:
        """Return the images that are used, and what each is for, as the settings say.

        Raises:
            InputError: `splits` is not of these images, or the images cannot be split in this way.
        """
        whole = self.prepared.catalogue
        if self.splits is None:
            return whole, self.draw(whole)
        file = Path(self.splits).expanduser()
        try:
            return match_split(whole, read_split(file), f"--data.splits {file}", self.ignore_new)
        except ChangedImagesError as error:
            way = ", or give --data.ignore_new true to leave out what is new" if error.difference.only_new else ""
            raise ChangedImagesError(f"{error}; leave the flag out for a new split{way}", error.difference) from None

    def draw(self, catalogue: Catalogue) -> Split:
        """Draw a split of images, as the settings ask for it."""
        return make_split(catalogue, self.val_size, self.test_size, self.split_seed, self.num_folds, self.fold)

    @property
    def catalogue(self) -> Catalogue:
        """Return the usable images, or those that `splits` lists."""
        return self.prepared.catalogue if self.splits is None else self._divided[0]

    @property
    def split(self) -> Split:
        """Return what each image is for."""
        return self._divided[1]

    @property
    def class_names(self) -> list[str]:
        """List the classes in the order of the targets."""
        return self.catalogue.class_names

    @property
    def num_classes(self) -> int:
        """Count the classes."""
        return len(self.class_names)

    @property
    def value_range(self) -> list[float] | None:
        """Return the values that become black and white in images deeper than 8 bits; None where there are none."""
        value_range = self.catalogue.read_options.value_range
        return [*value_range] if value_range else None

    @cached_property
    def labels(self) -> Tensor:
        """Return the target of every image of the catalogue, int64 [N]."""
        position = {name: number for number, name in enumerate(self.class_names)}
        return torch.tensor([position[image.label] for image in self.catalogue.images])

    @property
    def keys(self) -> Tensor:
        """Return a number for every image of the catalogue that depends on its content alone, int64 [N]."""
        return torch.from_numpy(self.catalogue.content_keys)

    @property
    def class_weights(self) -> list[float] | None:
        """Return each class's factor in the training loss, 1 on the average over images; None where there are none."""
        if self.balance not in ("inverse", "effective"):
            return None
        counts = torch.bincount(self.labels[self.split.indices("train")], minlength=self.num_classes)
        return class_factors(counts.numpy(), self.balance_beta if self.balance == "effective" else None)

    def describe(self) -> str:
        """Say in one line how the images are split and how uneven the classes are."""
        return describe_split(self.catalogue, self.split)

    def prepare_data(self) -> None:
        """Decode and resize every image, once for all processes and later runs."""
        open_pixels(self.catalogue, self.square, self.cache_dir)

    def setup(self, stage: str) -> None:
        """Open the store of pixels for every part."""
        self.pixels = open_pixels(self.catalogue, self.square, self.cache_dir)

    def views_of(self, part: Part) -> list[int] | None:
        """List the views in which a part's images are seen; None where every epoch draws afresh."""
        if part != "train" or self.views == 0 or self.augmentation is None:
            return [CLEAN]
        return None if self.views is None else list(range(1, self.views + 1))

    def features(self, part: Part) -> Store | None:
        """Return what a frozen trunk made of a part's images in all their views; None where they are not stored.

        `find_features`, which a callback sets that has a trunk, is asked where a loader is made.
        """
        return None if self.find_features is None else self.find_features(part)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Make the loader of this process's share of the training batches."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        """Make the loader of this process's share of the validation batches."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Make the loader of this process's share of the test batches."""
        return self._loader("test")

    def _loader(self, part: Part) -> DataLoader[Batch]:
        index, features = torch.from_numpy(self.split.indices(part)), self.features(part)
        rank, world_size, shuffle, device = 0, 1, part == "train", torch.device("cpu")
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
            shuffle = shuffle and not self.trainer.overfit_batches  # type: ignore[attr-defined]
            device = self.trainer.strategy.root_device
        views, mirrored = self.views_of(part), self.tta_flip and part != "train"
        dataset: PixelDataset | FeatureDataset
        if features is None:
            rows = resident(self.pixels, index, [CLEAN], device)
            dataset = PixelDataset(rows, index, self.labels, self.keys, self.augmentation)
        else:
            rows = resident(features, index, [*(views or []), *([MIRRORED] if mirrored else [])], device)
            dataset = FeatureDataset(rows, index, self.labels, mirrored)
        balanced = shuffle and self.balance == "sampling"
        order = BalancedOrder(self.labels[index], self.seed) if balanced else EpochOrder(len(index), shuffle, self.seed)
        shares = BatchShares(order, self.batch_size, views, dataset.look_up, rank, world_size)
        # Rows come from memory or a memory map: worker processes would only pass them on.
        pinned = device.type == "cuda" and isinstance(rows, Store)
        return DataLoader(dataset, batch_sampler=shares, collate_fn=only, pin_memory=pinned)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch, whose entries need no search for tensors as Lightning's own does."""
        if device.type == "mps" and "draws" in batch:  # which has no float64
            batch["draws"] = batch["draws"].float()
        return {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment images on the device."""
        if "draws" in batch:
            assert isinstance(self.augmentation, PresetAugmentation)
            batch["images"] = self.augmentation.apply(batch["images"], batch["draws"])
        elif "key" in batch and self.augmentation is not None:
            batch["images"] = augmented(self.augmentation, batch["images"], batch["key"], batch["view"])
        return batch

    def images(self, index: Tensor, view: Tensor, device: torch.device) -> Tensor:
        """Return images int64 [B] in the views int64 [B], as a model takes them: [B, 3, H, W] in 0..255."""
        return self.in_views(self.pixels.fetch(index).to(device), index, view)

    def in_views(self, pixels: Tensor, index: Tensor, view: Tensor) -> Tensor:
        """Return what `images` does, on the device of its pixels, which are there already: uint8 [B, H, W, 3]."""
        images = pixels.permute(0, 3, 1, 2)
        if self.augmentation is not None and (view > CLEAN).any():
            keys, views = self.keys[index].to(images.device), view.clamp(min=CLEAN).to(images.device)
            images = augmented(self.augmentation, images, keys, views)
        return torch.where((view == MIRRORED).to(images.device)[:, None, None, None], images.flip(3), images)
