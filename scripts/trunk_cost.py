"""Measure what a frozen trunk takes for an image as timm builds it, and as features are computed with it.

    python scripts/trunk_cost.py --backbones tf_efficientnet_lite2 resnet50 --image_size 352

The weights are random, which takes as long. Both take the same images, in channels_last, eight at a time (256 on a
GPU), in turns; medians are printed, in float32 and under bfloat16's autocast. Leave the machine alone meanwhile.
"""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median

import torch
from tabulate import tabulate
from torch import Tensor

from kth_lightning import FeatureHead
from kth_lightning.models.folding import Folded


def main() -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=["tf_efficientnet_lite2"], help="of timm (Lite2)")
    parser.add_argument("--image_size", type=int, default=352, help="pixels a side (352)")
    parser.add_argument("--turns", type=int, default=9, help="of each (9)")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size, rows = options.image_size, []
    for backbone in options.backbones:
        model = FeatureHead(2, backbone=backbone, weights="none", image_size=size).eval().to(device)
        assert model.trunk is not None
        images = torch.randn(256 if device.type == "cuda" else 8, 3, size, size, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        for name in ("float32", "bfloat16"):
            mixed = torch.autocast(device.type, torch.bfloat16) if name == "bfloat16" else nullcontext()
            with torch.inference_mode(), mixed:
                ways: list[Callable[[Tensor], Tensor]] = [model.trunk, Folded(model.trunk)]
                plain, ours = _milliseconds(ways, images, options.turns)
            rows.append([backbone, name, f"{plain:.1f}", f"{ours:.1f}", f"{plain / ours:.2f}"])
    print(tabulate(rows, ["backbone", "", "ms an image, as built", "as computed with", "ratio"], "github"))
    return 0


def _milliseconds(ways: list[Callable[[Tensor], Tensor]], images: Tensor, turns: int) -> list[float]:
    seconds: list[list[float]] = [[] for _ in ways]
    for turn in range(turns + 1):
        for way, taken in zip(ways, seconds, strict=True):
            begin = time.perf_counter()
            way(images)
            if images.device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first folds
                taken.append(time.perf_counter() - begin)
    return [1000 * median(taken) / len(images) for taken in seconds]


if __name__ == "__main__":
    sys.exit(main())
