"""Keep one small run of each model as this version writes it: what every later version must open.

    python scripts/keep_format.py tests/formats/runs-0.2.0.tar.xz

Weights are rounded to few values, so that the archive stays small.
"""

import shutil
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import timm
import torch
from PIL import Image

from kth_lightning.cli.main import main

BACKBONE = "test_efficientnet"
KEPT = ("config.yaml", "start.json", "splits.csv", "metrics.json", "history.csv", "predictions.csv", "confusion.csv")
MODELS = {
    "benchmark": ["BenchmarkCNN", "--model.filters", "[8,16]", "--model.block_dropout", "[0,0]"],
    "head": ["FeatureHead", "--model.backbone", BACKBONE],
    "finetune": ["FineTuned", "--model.backbone", BACKBONE, "--model.trained_stages", "1"],
}


def draw_images(folder: Path) -> None:
    """Draw three classes of twelve images, the same ones whenever it is called."""
    rng = np.random.default_rng(0)
    for number in range(3):
        (folder / f"class{number}").mkdir(parents=True)
        for index in range(12):
            pixels = (rng.random((64, 64, 3)) * 130 + np.eye(3)[number] * 120).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class{number}" / f"{index:03d}.png")


def keep(archive: Path) -> None:
    """Train each model for two epochs and pack what its run folder tells."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw_images(folder / "images")
        torch.manual_seed(0)
        state = timm.create_model(BACKBONE).state_dict()
        rounded = {
            name: (value * 32).round() / 32 if value.is_floating_point() else value for name, value in state.items()
        }
        torch.save(rounded, folder / "weights.pth")
        for name, model in MODELS.items():
            weights = [] if name == "benchmark" else ["--model.weights", str(folder / "weights.pth")]
            flags = ["--data.root", str(folder / "images"), "--data.image_size", "32", "--trainer.max_epochs", "2"]
            flags += ["--data.cache_dir", str(folder / "cache"), "--trainer.accelerator", "cpu"]
            main(
                [
                    "fit",
                    "--model",
                    *model,
                    *weights,
                    *flags,
                    "--trainer.precision",
                    "32-true",
                    "--run_dir",
                    str(folder / name),
                ]
            )
        with tarfile.open(archive, "w:xz") as packed:
            for name in MODELS:
                for file in (*KEPT, "checkpoints/best.ckpt"):
                    packed.add(folder / name / file, f"{name}/{file}")
        shutil.rmtree(folder / "cache")


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
