"""The part of the command `export` that makes an int8 file and decides whether it counts."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from jsonargparse import Namespace

from kth_lightning.cli.parser import Parser
from kth_lightning.data.images import UnreadableImage, read_rgb
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.io.progress import Progress
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.predict.compare_onnx import OnnxComparison, compare_onnx
from kth_lightning.predict.quantize_onnx import quantize_onnx

MAX_LOSS = 0.5
"""Percentage points of accuracy that int8 may cost where nothing else is asked for."""

_CALIBRATED = 200
"""The most validation images that the ranges of values are taken from."""


def add_int8_flags(parser: Parser) -> None:
    """Add `--quantize` and `--max_loss`."""
    parser.add_argument(
        "--quantize",
        type=Literal["int8"] | None,
        default=None,
        help="int8 writes a smaller .onnx file that computes in int8, with ranges from the run's validation images, "
        "and compares it with float32 on the run's test images.",
    )
    parser.add_argument(
        "--max_loss",
        type=float | None,
        default=None,
        help=f"Percentage points of test accuracy that --quantize may cost; {MAX_LOSS} if left out. A file that costs "
        "more is not written.",
    )


def check_int8_flags(options: Namespace, output: Path) -> float:
    """Return how many percentage points may be lost.

    Raises:
        InputError: The flags do not go together, or the number is out of its range.
    """
    if options.quantize is None:
        if options.max_loss is not None:
            raise InputError("--max_loss goes with --quantize int8; give both, or neither")
        return MAX_LOSS
    if output.suffix != ".onnx":
        raise InputError(f"--quantize writes ONNX alone, and --output {output} is none; give a name that ends in .onnx")
    most = MAX_LOSS if options.max_loss is None else options.max_loss
    if not 0 <= most <= 100:
        raise InputError(f"--max_loss {most}: give percentage points, from 0 to 100")
    return float(most)


def write_int8(
    exported: Path, target: Path, output: Path, data: ImageData, run: RunFolder, max_loss: float
) -> OnnxComparison:
    """Write an exported file in int8 and compare the two.

    Args:
        exported: The file in float32.
        target: The file to write.
        output: Its name for people.
        data: The run's images.
        run: The run, which tells the groups of its test images.
        max_loss: The percentage points of accuracy that int8 may cost.

    Raises:
        InputError: It costs more, the network cannot be quantised, or an image cannot be read any more.
    """
    validation, test = (data.split.indices(part).tolist() for part in ("val", "test"))
    chosen = validation[:: -(-len(validation) // _CALIBRATED)]
    quantize_onnx(exported, target, _images(data, chosen, "calibrating"))
    predictions = run.read_predictions()
    group_of = dict(zip(predictions.names, predictions.groups, strict=True))
    groups = [group_of.get(data.catalogue.images[position].name, "") for position in test]
    labels = data.labels[test].tolist()
    comparison = compare_onnx(exported, target, zip(_images(data, test, "comparing"), labels, strict=True), groups)
    lost = comparison.points_lost["value"]
    assert lost is not None
    if lost > max_loss:
        raise InputError(
            f"--quantize: {output} is not written, since int8 costs more than --max_loss {max_loss:g}: "
            f"{_accuracy(comparison)}; export without --quantize, or allow more"
        )
    return comparison


def comparison_text(comparison: OnnxComparison, file: Path) -> str:
    """Return the text of the JSON file beside an exported one.

    Args:
        comparison: Of float32 with int8.
        file: The one in int8.
    """
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return json.dumps({"format": 1, "sha256": digest} | comparison.as_json(), indent=2) + "\n"


def comparison_lines(comparison: OnnxComparison) -> str:
    """Say in two lines what int8 costs and what it saves."""
    float32, int8 = comparison.first, comparison.second
    return (
        f"int8 against float32: {_accuracy(comparison)}; the same label for {100 * comparison.same_label:.1f} %\n"
        f"size {int8.bytes / 1e6:.1f} MB instead of {float32.bytes / 1e6:.1f}; an image takes "
        f"{int8.ms_one_thread:.3g} ms instead of {float32.ms_one_thread:.3g} with one thread, "
        f"{int8.ms_all_threads:.3g} instead of {float32.ms_all_threads:.3g} with all ({comparison.cores} cores)"
    )


def _accuracy(comparison: OnnxComparison) -> str:
    lost, low, high = (comparison.points_lost[key] for key in ("value", "low", "high"))
    interval = "" if low is None or high is None else f" (95 % interval {low:.1f} to {high:.1f})"
    before, after = (100 * (figures.acc["value"] or 0) for figures in (comparison.first, comparison.second))
    return (
        f"{after:.1f} % of {comparison.n} test images right instead of {before:.1f} %, {lost:.1f} points lost{interval}"
    )


def _images(data: ImageData, positions: Sequence[int], stage: str) -> Iterator[npt.NDArray[np.uint8]]:
    for position in Progress(positions, stage):
        file = data.catalogue.pixels(position)
        try:
            yield np.asarray(read_rgb(file, options=data.catalogue.read_options))
        except UnreadableImage as error:
            raise InputError(
                f"{data.catalogue.file(position)} cannot be read any more ({error}); put it back"
            ) from None
