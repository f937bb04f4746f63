"""The colours of each class, as densities of red, green and blue."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from tqdm import tqdm

from kth_lightning.data.catalogue import Catalogue
from kth_lightning.explore.photos import read_picture

_BANDWIDTH = 4.0  # levels; Scott's rule gives 3 to 5 for the pixels of a hundred pictures
_AT_LEAST = 128  # pixels a side, from which a large JPEG file's colours are taken


def colour_densities(catalogue: Catalogue, members: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Estimate how often each level of red, green and blue occurs in the pictures of each class.

    A kernel density estimate over all pixels, every picture weighing the same: a Gaussian of 4 levels, reflected at 0
    and 255 so that no density leaves the range.

    Args:
        catalogue: The pictures.
        members: For each of K classes, the places in the catalogue of the pictures to read.

    Returns:
        Densities of shape [K, 3, 256]; each sums to 1 over the levels.

    Raises:
        InputError: A picture cannot be read any more.
    """
    histograms = np.zeros((len(members), 3, 256))
    owners = [number for number, places in enumerate(members) for _ in places]
    places = [place for class_places in members for place in class_places]
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        read = pool.map(lambda place: _histogram(catalogue, place), places)
        bar = tqdm(read, total=len(places), desc="Reading colours", unit="", delay=1, leave=False)
        for owner, histogram in zip(owners, bar, strict=True):
            histograms[owner] += histogram
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for all the rest
    counts = np.array([len(class_places) for class_places in members])
    return gaussian_filter1d(histograms / counts[:, None, None], _BANDWIDTH, mode="reflect")


def _histogram(catalogue: Catalogue, place: int) -> NDArray[np.float64]:
    picture = read_picture(catalogue, place, _AT_LEAST)
    return np.array(picture.histogram(), dtype=float).reshape(3, 256) / (picture.width * picture.height)
