"""Measure ways to quantise an exported network on validation images, and say which is chosen.

    python scripts/int8.py --ckpt_path runs/best/checkpoints/best.ckpt --json runs/int8-best.json
    python scripts/int8.py --choose runs/int8-best.json runs/int8-head.json runs/int8-cnn.json

Ranges of values are taken from every other validation image of the checkpoint's run, and the cross-entropy is measured
on the rest; test images have no part in it. The way that is chosen is the first of the list, which begins with the
simplest, whose mean cross-entropy over all models' images lies within one standard error of the lowest: that of their
difference, image by image. 8-bit weights are measured to see what 7 bits cost, and are not chosen: without VNNI a
processor's sums overflow, so that figures measured with it would not hold there. What has been measured is kept: a
command that was interrupted goes on where it is repeated.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import tabulate
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

from kth_lightning.cli.parser import Parser
from kth_lightning.cli.run_images import add_place_flags, places_of_run
from kth_lightning.data.images import read_rgb
from kth_lightning.data.module import ImageData
from kth_lightning.evaluation.statistics import cross_entropies
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.predict.exported_file import quiet_exporters, write_exported
from kth_lightning.predict.predictor import Predictor
from kth_lightning.predict.quantize_onnx import STEPS, fuse_onnx, network_layers

Layers = Callable[[list[onnx.NodeProto]], list[onnx.NodeProto]]
"""From the nodes that could compute in int8 to those that stay in float."""


def _none(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    return []


def _last(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    return [node for node in nodes if node.op_type == "Gemm"]


def _first_and_last(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    return [*_last(nodes), *(node for node in convolutions if node.input[1] == convolutions[0].input[1])]


def _depthwise(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    return [node for node in nodes if any(item.name == "group" and item.i > 1 for item in node.attribute)]


WAYS: dict[str, tuple[Layers, bool]] = {
    "all layers": (_none, True),
    "dense layers in float": (_last, True),
    "first and dense layers in float": (_first_and_last, True),
    "depthwise layers in float": (_depthwise, True),
    "all layers, 8-bit weights": (_none, False),
}
"""What stays in float, and whether weights have 7 bits; simplest first."""


class _Images(CalibrationDataReader):
    def __init__(self, images: list[npt.NDArray[np.uint8]]) -> None:
        self.left = iter(images)

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        image = next(self.left, None)
        return None if image is None else {"images": image[None]}


def main() -> None:
    """Measure a model, or choose."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt_path", type=str, default="", help="A finished run's checkpoints/best.ckpt.")
    parser.add_argument("--json", type=str, default="", help="The file to write.")
    parser.add_argument("--images", type=int, default=200, help="The most validation images, half for the ranges.")
    parser.add_argument("--choose", type=str, nargs="+", default=[], help="Files of several models.")
    add_place_flags(parser)
    options = parser.parse_args()
    if options.choose:
        print(_choose([json.loads(Path(file).read_text(encoding="utf-8")) for file in options.choose]))
        return
    checkpoint = Path(options.ckpt_path)
    parser.set_defaults(places_of_run(checkpoint, "--ckpt_path") | {"data.ignore_new": True})
    data: ImageData = parser.instantiate(parser.parse_args()).data
    file = Path(options.json)
    found = json.loads(file.read_text(encoding="utf-8"))["ways"] if file.exists() else {}
    for way, figures in _measure(Predictor(checkpoint, "cpu"), data, options.images, found):
        found[way] = figures
        write_atomically(json.dumps({"model": checkpoint.parent.parent.name, "ways": found}, indent=1) + "\n", file)
    print(_choose([json.loads(file.read_text(encoding="utf-8"))]))


def _measure(
    predictor: Predictor, data: ImageData, most: int, found: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure float32 and the ways that are not found yet."""
    positions = data.split.indices("val").tolist()
    positions = positions[:: -(-len(positions) // most)]
    options = data.catalogue.read_options
    images = [np.asarray(read_rgb(data.catalogue.pixels(position), options=options)) for position in positions]
    calibrating, labels, tested = images[::2], data.labels[positions].numpy()[1::2], images[1::2]
    with TemporaryDirectory() as folder, quiet_exporters():
        files = ("float.onnx", "fused.onnx", "int8.onnx", "ranges.json")
        exported, fused, int8, ranges = (Path(folder) / name for name in files)
        write_exported(predictor, exported)
        fuse_onnx(exported, fused)
        if "float32" not in found:
            yield "float32", _figures(labels, list(_answers(exported, tested)), None)
        before = found["float32"]["labels"]
        graph = onnx.load(fused)
        names = set(network_layers(graph))
        nodes = [node for node in graph.graph.node if node.name in names]
        for way, (layers, reduced) in WAYS.items():
            left = {node.name for node in layers(nodes)}
            if way in found or (not left and layers is not _none):
                continue
            quantize_static(
                fused,
                int8,
                _Images(calibrating),
                op_types_to_quantize=[*STEPS],
                nodes_to_quantize=[node.name for node in nodes if node.name not in left],
                per_channel=True,
                reduce_range=reduced,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                calibration_cache_path=ranges,
            )
            yield way, _figures(labels, list(_answers(int8, tested)), before)


def _answers(file: Path, images: list[npt.NDArray[np.uint8]]) -> Iterator[npt.NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for image in images:
        yield session.run(["probabilities"], {"images": image[None]})[0][0]


def _figures(
    labels: npt.NDArray[np.int64], answers: list[npt.NDArray[np.float32]], before: list[int] | None
) -> dict[str, Any]:
    probabilities = np.stack(answers)
    given = probabilities.argmax(1)
    return {
        "acc": float((given == labels).mean()),
        "same_label": 1.0 if before is None else float((given == before).mean()),
        "losses": cross_entropies(labels, probabilities).tolist(),
        "labels": given.tolist(),
    }


def _choose(models: list[dict[str, Any]]) -> str:
    """Return the table of what was measured, and the rule's choice."""
    ways = [way for way in WAYS if all(way in model["ways"] or way == "depthwise layers in float" for model in models)]
    # A model without depthwise layers is the same with and without them in int8.
    losses = {
        way: np.concatenate([model["ways"].get(way, model["ways"]["all layers"])["losses"] for model in models])
        for way in ways
    }
    portable = [way for way in ways if WAYS[way][1]]
    best = min(portable, key=lambda way: losses[way].mean())
    rows, chosen = [], ""
    for way in ["float32", *ways]:
        row: list[str] = [way]
        for model in models:
            item = model["ways"].get(way, model["ways"]["all layers"])
            row += [f"{np.mean(item['losses']):.4f}", f"{item['acc']:.4f}", f"{item['same_label']:.4f}"]
        if way in losses:
            over = losses[way] - losses[best]
            error = over.std(ddof=1) / np.sqrt(len(over))
            chosen = chosen or (way if way in portable and over.mean() <= error else "")
            row += [f"{over.mean():.5f}", f"{error:.5f}"]
        rows.append(row)
    head = [
        "",
        *(f"{model['model']}: {name}" for model in models for name in ("loss", "acc", "same")),
        "over best",
        "SE",
    ]
    return f"{tabulate.tabulate(rows, head, 'github', disable_numparse=True)}\nchosen: {chosen}"


if __name__ == "__main__":
    main()
