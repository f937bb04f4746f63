"""The colours of each class, as densities of red, green and blue."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from kth_lightning.data.catalogue import Catalogue
from kth_lightning.io.progress import Progress
from kth_lightning.report.photos import read_image

_BANDWIDTH = 4.0  # levels; Scott's rule gives 3 to 5 for the pixels of a hundred images
_AT_LEAST = 128  # pixels a side, from which a large JPEG file's colours are taken


def colour_densities(catalogue: Catalogue, members: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Estimate how often each level of red, green and blue occurs in the images of each class.

    A kernel density estimate over all pixels, every image weighing the same: a Gaussian of 4 levels, reflected at 0
    and 255 so that no density leaves the range.

    Args:
        catalogue: The images.
        members: For each of K classes, the indices in the catalogue of the images to read.

    Returns:
        Densities of shape [K, 3, 256]; each sums to 1 over the levels.

    Raises:
        InputError: An image cannot be read any more.
    """
    histograms = np.zeros((len(members), 3, 256))
    owners = [number for number, positions in enumerate(members) for _ in positions]
    positions = [position for class_places in members for position in class_places]
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        read = pool.map(lambda position: _histogram(catalogue, position), positions)
        bar = Progress(read, "reading colours", total=len(positions))
        for owner, histogram in zip(owners, bar, strict=True):
            histograms[owner] += histogram
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for all the rest
    counts = np.array([len(class_places) for class_places in members])
    return gaussian_filter1d(histograms / counts[:, None, None], _BANDWIDTH, mode="reflect")


def _histogram(catalogue: Catalogue, position: int) -> NDArray[np.float64]:
    image = read_image(catalogue, position, _AT_LEAST)
    return np.array(image.histogram(), dtype=float).reshape(3, 256) / (image.width * image.height)
