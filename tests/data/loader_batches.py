"""Batches as a loader of the data module gives them."""

from collections.abc import Iterable
from types import SimpleNamespace

import torch

from kth_lightning.data.batch import Batch
from kth_lightning.data.module import ImageData


def batches(data: ImageData, part: str = "train", epoch: int = 0, rank: int = 0, world_size: int = 1) -> list[Batch]:
    """List a loader's batches as one process of many has them."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=rank, world_size=world_size, overfit_batches=0, strategy=strategy
    )
    data.setup("fit")
    loader = getattr(data, f"{part}_dataloader")()
    loader.batch_sampler.sampler.set_epoch(epoch)
    return list(loader)


def joined(found: Iterable[Batch], name: str = "index") -> torch.Tensor:
    return torch.cat([batch[name] for batch in found])
