"""The summary of training images, and of validation images beside them, that a checkpoint keeps."""

import torch
from torch import Tensor

from kth_lightning.data.module import ImageData
from kth_lightning.data.split import Part
from kth_lightning.evaluation.novelty import Novelty, most_images, thin_out
from kth_lightning.models import Classifier
from kth_lightning.models.embedding import embed_features
from kth_lightning.stores.store import CLEAN, Store

_BATCH = 32


def summarise_training(
    model: Classifier, data: ImageData, stores: tuple[Store | None, Store | None], index: Tensor, logits: Tensor
) -> Novelty | None:
    """Summarise the training images for novelty, all or as many as a summary may keep.

    Args:
        model: In evaluation mode, on whatever device.
        data: The images.
        stores: What the trunk made of training and of validation images; None where that is not stored. Where the clean
            images are not trained on, the first view stands for them.
        index: Of the validation images, int64 [K].
        logits: What the model says of them, [K, C].

    Returns:
        None where there are too few images.
    """
    known = torch.cat([_embed(model, data, "val", stores[1], some) for some in index.split(_BATCH)])
    train = torch.from_numpy(data.split.indices("train"))
    train = train[thin_out(data.labels[train], data.keys[train], most_images(known.shape[1]))]
    vectors = torch.cat([_embed(model, data, "train", stores[0], some) for some in train.split(_BATCH)])
    return Novelty.fit(vectors, data.keys[train], (known, logits.cpu()))


def _embed(model: Classifier, data: ImageData, part: Part, features: Store | None, index: Tensor) -> Tensor:
    views = data.views_of(part)
    view = torch.full_like(index, views[0] if features is not None and views else CLEAN)
    if features is None:
        rows = model.features(data.images(index, view, model.device))
    else:
        rows = features.fetch(index, view).to(model.device)
    return embed_features(model, rows).cpu()
