from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kth_lightning.data.evaluated import EvaluatedImages


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({"cat": 2, "dog": 1}, "3 images in 2 of its 2 classes"),
        (
            {"cat": 1, "wolf": 1},
            "1 image in 1 of its 2 classes; 1 image is of a class that the checkpoint does not know: wolf (1); no "
            "image shows dog",
        ),
        (
            {"cat": 2, "dog": 1, "wolf": 2, "yak": 1},
            "3 images in 2 of its 2 classes; 3 images are of classes that the checkpoint does not know: wolf (2), yak "
            "(1)",
        ),
    ],
)
def test_a_line_says_what_is_evaluated(counts: dict[str, int], line: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for label, count in counts.items():
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(count):
            pixels = draw.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.png")
    settings = {"root": str(tmp_path / "images"), "cache_dir": str(tmp_path / "cache"), "image_size": 32}
    assert EvaluatedImages(["cat", "dog"], "test", True, **settings).describe() == line
