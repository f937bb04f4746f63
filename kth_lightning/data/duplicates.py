"""Duplicates: the same file twice, or the same photograph resized, recompressed or a little cropped or recoloured."""

from collections.abc import Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.cluster.hierarchy import DisjointSet
from scipy.fft import dctn
from scipy.spatial import KDTree

from kth_lightning.io.progress import Progress

# Set on KTH-ANIMALS, whose pairs were confirmed by eye. Pairs there differ in up to 36 bits, correlate by 0.986 or more
# and differ by up to 0.8 standard deviations in one cell; the nearest others: 41 bits, 0.950, 1.3 standard deviations.
_MAX_BITS = 40
_MIN_CORRELATION = 0.97
_MAX_CELL_DIFFERENCE = 1.0  # in standard deviations of the thumbnail

_FLAT = 4.0  # grey levels; below this standard deviation noise decides, so only the bytes are compared
_SIDE = 16
_QUERIES = 256  # bound the memory of many images, and where nearly all of them are alike
_PAIRS = 65_536


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Hold what near duplicates are found by.

    Attributes:
        bits: Difference hash, uint8 of shape (32,).
        thumbnail: Grey levels, uint8 of shape (16, 16).
    """

    bits: NDArray[np.uint8]
    thumbnail: NDArray[np.uint8]


def fingerprint(image: Image.Image) -> Fingerprint:
    """Take the fingerprint of an upright RGB image of any size."""
    grey = image.convert("L")
    return Fingerprint(
        bits=np.packbits(imagehash.dhash(grey, hash_size=_SIDE).hash),
        thumbnail=np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX)),
    )


def duplicate_groups(digests: Sequence[str], fingerprints: Sequence[Fingerprint]) -> list[int]:
    """Return for each image the index of the first image of its group; an image without duplicates has its own.

    Near duplicates are close in three ways: difference hash, correlation of the thumbnails, and their largest
    difference in one cell once brightness and contrast agree. Candidates come from a k-d tree over each thumbnail's
    lowest frequencies. Leaving frequencies out only brings images closer, so the tree misses no pair.

    Args:
        digests: Of each file's bytes.
        fingerprints: One for each digest.
    """
    groups = DisjointSet(range(len(digests)))
    first: dict[str, int] = {}
    for index, digest in enumerate(digests):
        groups.merge(first.setdefault(digest, index), index)
    distinct = np.array([index for index in first.values() if fingerprints[index].thumbnail.std() >= _FLAT], dtype=int)
    for i, j in _near_pairs([fingerprints[index] for index in distinct]):
        groups.merge(int(distinct[i]), int(distinct[j]))
    lowest: dict[int, int] = {}
    return [lowest.setdefault(groups[index], index) for index in range(len(digests))]


def _near_pairs(fingerprints: Sequence[Fingerprint]) -> list[tuple[int, int]]:
    if len(fingerprints) < 2:
        return []
    bits = np.stack([one.bits for one in fingerprints]).view(np.uint64)
    thumbnails = np.stack([one.thumbnail for one in fingerprints])
    blocks = (thumbnails[start : start + _QUERIES] for start in range(0, len(thumbnails), _QUERIES))
    frequencies = np.concatenate([_lowest_frequencies(block) for block in blocks])
    radius = _SIDE * np.sqrt(2 - 2 * _MIN_CORRELATION)
    tree = KDTree(frequencies)
    pairs: list[tuple[int, int]] = []
    for start in Progress(range(0, len(fingerprints), _QUERIES), "reading images", "duplicates", unit="blocks"):
        queries = tree.indices[start : start + _QUERIES]  # neighbours in the tree, three times as fast as any others
        near = KDTree(frequencies[queries]).sparse_distance_matrix(tree, radius, output_type="ndarray")
        left, right = queries[near["i"]], near["j"]
        for at in range(0, len(left), _PAIRS):
            i, j = left[at : at + _PAIRS], right[at : at + _PAIRS]
            keep = (i < j) & (np.bitwise_count(bits[i] ^ bits[j]).sum(axis=1) <= _MAX_BITS)
            i, j = i[keep], j[keep]
            difference = np.abs(_standardised(thumbnails[i]) - _standardised(thumbnails[j]))
            keep = np.square(difference).sum(axis=(1, 2)) <= radius**2
            keep &= difference.max(axis=(1, 2), initial=0.0) <= _MAX_CELL_DIFFERENCE
            pairs.extend(zip(i[keep].tolist(), j[keep].tolist(), strict=True))
    return pairs


def _lowest_frequencies(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    return dctn(_standardised(thumbnails), axes=(1, 2), norm="ortho")[:, :3, :3].reshape(len(thumbnails), -1)[:, 1:]


def _standardised(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Give thumbnails [N, 16, 16] the mean 0 and the standard deviation 1, each."""
    values = thumbnails.astype(np.float32)
    values -= values.mean(axis=(1, 2), keepdims=True)
    values /= values.std(axis=(1, 2), keepdims=True)
    return values
