"""The summary of the training images that a checkpoint keeps."""

import torch

from kth_lightning.data.module import ImageData
from kth_lightning.evaluation.novelty import Novelty, most_images, thin_out
from kth_lightning.models import Classifier
from kth_lightning.models.embedding import embed_features
from kth_lightning.stores.store import CLEAN, Store

_BATCH = 32


def summarise_training(model: Classifier, data: ImageData, features: Store | None) -> Novelty | None:
    """Summarise the training images for novelty, all or as many as a summary may keep.

    Args:
        model: In evaluation mode, on whatever device.
        data: The images.
        features: What the trunk made of them; None where that is not stored. Where the clean images are not trained
            on, the first view stands for them.

    Returns:
        None where there are too few images.
    """
    index = torch.from_numpy(data.split.indices("train"))
    width = _embed(model, data, features, index[:1]).shape[1]
    index = index[thin_out(data.labels[index], data.keys[index], most_images(width))]
    vectors = torch.cat([_embed(model, data, features, some) for some in index.split(_BATCH)])
    return Novelty.fit(vectors, data.keys[index])


def _embed(model: Classifier, data: ImageData, features: Store | None, index: torch.Tensor) -> torch.Tensor:
    views = data.views_of("train")
    view = torch.full_like(index, views[0] if features is not None and views else CLEAN)
    if features is None:
        rows = model.features(data.images(index, view, model.device))
    else:
        rows = features.fetch(index, view).to(model.device)
    return embed_features(model, rows).cpu()
