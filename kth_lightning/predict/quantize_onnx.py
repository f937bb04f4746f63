"""An ONNX file whose network computes in int8."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from kth_lightning.errors import InputError
from kth_lightning.predict.exported_file import quiet_exporters

_WEIGHTED = ("Conv", "Gemm", "MatMul")
_BETWEEN = ("Add", "Clip", "Relu", "MaxPool")
STEPS = (*_WEIGHTED, *_BETWEEN)
"""Layers with weights, and steps that pass int8 on from one to the next instead of float32 that is rounded again."""


def quantize_onnx(source: Path, target: Path, images: Iterable[npt.NDArray[np.uint8]]) -> None:
    """Write an exported ONNX file once more, with convolutions and dense layers in int8.

    Resizing, normalising, softmax and novelty stay as they are. Weights have a scale for each channel and 7 bits, so
    that no sum overflows on processors without VNNI, where products are added in 16 bits. Activations have 8 bits, from
    the lowest to the highest value that `images` give. docs/int8.md says how this was chosen.

    Args:
        source: The file, as `export` writes it.
        target: The file to write.
        images: uint8 [H, W, 3], of any sizes, that none of the file's figures is measured on.

    Raises:
        InputError: The network has no such layer, or ONNX Runtime cannot quantise it.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = ({"images": image[None]} for image in images)

        def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
            return next(self.batches, None)

    with TemporaryDirectory() as folder, quiet_exporters():
        fused, quantized = Path(folder) / "fused.onnx", Path(folder) / "int8.onnx"
        fuse_onnx(source, fused)
        layers = network_layers(onnx.load(fused))
        if not layers:
            raise InputError(
                "--quantize: the network has no convolution or dense layer to quantise; leave the flag out"
            )
        try:
            quantize_static(
                fused,
                quantized,
                Images(),
                op_types_to_quantize=[*STEPS],
                nodes_to_quantize=layers,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except InputError:
            raise
        except Exception as error:  # whatever the tool for usual networks stumbles over
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"--quantize: ONNX Runtime cannot quantise {source} ({reason}); leave the flag out"
            ) from None
        _finish(quantized, source, target)


def fuse_onnx(source: Path, target: Path) -> None:
    """Write an ONNX file with each batch normalisation inside the convolution before it."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    # Folded, the novelty's float16 vectors would be kept once more in float32.
    onnxruntime.InferenceSession(
        source, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
    )
    model = onnx.load(target)
    for position, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{position}"
    onnx.save(model, target)


def network_layers(model: "onnx.ModelProto") -> list[str]:  # type: ignore[name-defined]  # noqa: F821
    """Name the nodes that compute in int8: layers with weights, and simple steps that lie between two of them."""
    weights = {item.name for item in model.graph.initializer}
    nodes = list(model.graph.node)
    weighted = [node.op_type in _WEIGHTED and node.input[1] in weights for node in nodes]
    behind: set[str] = set()
    for node, has_weights in zip(nodes, weighted, strict=True):
        if has_weights or behind.intersection(node.input):
            behind.update(node.output)
    ahead: set[str] = set()
    for node, has_weights in zip(reversed(nodes), reversed(weighted), strict=True):
        if has_weights or ahead.intersection(node.output):
            ahead.update(node.input)
    return [
        node.name
        for node, has_weights in zip(nodes, weighted, strict=True)
        if has_weights
        or (node.op_type in _BETWEEN and behind.intersection(node.input) and ahead.intersection(node.output))
    ]


def _finish(quantized: Path, source: Path, target: Path) -> None:
    """Keep equal weights once, which the passes for an image and its mirror image have each, and the metadata."""
    import onnx_ir
    from onnx_ir.passes.common import DeduplicateInitializersPass, TopologicalSortPass

    model = onnx_ir.load(quantized)
    DeduplicateInitializersPass(size_limit=2**62)(model)
    TopologicalSortPass()(model)  # the tool does not look at what the branches of a node need
    model.metadata_props.update(onnx_ir.load(source).metadata_props)
    onnx_ir.save(model, target)
