"""What the corpus of bad input is made of."""

import hashlib
import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from kth_lightning.io.walk import MARK

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF", "gif": "GIF"}


def tiny_fit(root: Path) -> list[str]:
    flags = ["--model.filters", "[2,4]", "--model.block_dropout", "[0,0]", "--data.image_size", "32"]
    flags += ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1.0", "--trainer.precision", "32"]
    flags += ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--data.root", str(root)]
    return ["fit", "--model", "BenchmarkCNN", *flags]


def noise(seed: int, size: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8))


def encoded(suffix: str, seed: int = 99) -> bytes:
    stream = io.BytesIO()
    noise(seed).save(stream, FORMATS[suffix])
    return stream.getvalue()


def save(file: Path, seed: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    noise(seed).save(file)
    return file


def snapshot(folder: Path) -> dict[str, str]:
    """Give the hash of every file below a folder, but for the marks of folders that commands write into."""
    files = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names if name != MARK]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}
