"""The command `export`."""

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import yaml
from PIL import Image

from kth_lightning import __version__
from kth_lightning.cli.checkpoint_flags import add_calibrated_flag, add_checkpoint_flags, import_model_class
from kth_lightning.cli.parser import Parser
from kth_lightning.data.images import UnreadableImage, read_rgb
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.evaluation.novelty import HOW_TO_MAKE
from kth_lightning.io.find_images import FoundImages
from kth_lightning.io.progress import Progress
from kth_lightning.io.run_folder import RunFolder, write_atomically
from kth_lightning.predict.export_graph import ImageClassifier
from kth_lightning.predict.model_card import model_card
from kth_lightning.predict.predictor import Predictor

TOLERANCE = 1e-3
"""Largest difference of a probability between an exported file and PyTorch."""

NOVELTY_TOLERANCE = 0.02
"""Largest difference of a novelty, or that of two training images: rounding may move an image past some."""

Exported = Callable[[npt.NDArray[np.uint8]], Sequence[npt.NDArray[np.float32]]]
"""From images to probabilities, and novelty where it is told."""

_CHECKED = 24  # images


def export_command(argv: list[str]) -> None:
    """Write a checkpoint as ONNX or torch.export file, check it against PyTorch, and write a model card beside it.

    Args:
        argv: The command line behind `export`.

    Raises:
        InputError: The checkpoint, the file's name or an image cannot be used, a package is missing, or the exported
            file does not say what PyTorch says.
    """
    options = _parser().parse_args(argv)
    output = Path(options.output).expanduser()
    if output.suffix not in (".onnx", ".pt2") or output.is_dir():
        raise InputError(f"--output: {output} does not end in .onnx or .pt2; give a file name that does")
    card = output.with_name(f"{output.name}.md")
    if card.is_dir():
        raise InputError(f"--output: the model card cannot be written, {card} is a folder; give another place")
    if output.suffix == ".onnx" and not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        raise InputError("--output: ONNX needs packages that are not installed: pip install 'kth-lightning[export]'")
    kind = import_model_class(options.model_class)
    predictor = Predictor(options.ckpt_path, "cpu", options.calibrated, model_class=kind)
    run = _run_of(Path(options.ckpt_path).resolve())
    images, origin = _images(options.check, run, predictor)
    temporary = output.with_name(f".{output.stem}.{os.getpid()}{output.suffix}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise InputError(f"--output: cannot write {output} ({error.strerror}); give another place") from None
    try:
        print(f"exporting {type(predictor.model).__name__} ...", file=sys.stderr)
        try:
            exported = _write(predictor, temporary)
        except RuntimeError as error:  # of torch's exporters, whatever they stumble over
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"--ckpt_path: torch cannot export {options.ckpt_path} ({reason})") from None
        difference, of_novelty, count = largest_difference(exported, predictor, images)
        if not difference <= TOLERANCE:
            raise InputError(
                f"--output: {output} is not written: its probabilities would differ from PyTorch's by {difference:.1g} "
                f"on {origin}, which is more than rounding ({TOLERANCE}); please report it"
            )
        few = 0 if predictor.novelty is None else 2.5 / len(predictor.novelty.keys)
        if not of_novelty <= max(NOVELTY_TOLERANCE, few):
            raise InputError(
                f"--output: {output} is not written: its novelty would differ from PyTorch's by {of_novelty:.1g} on "
                f"{origin}, which is more than rounding; please report it"
            )
        text = model_card(output, predictor, run, f"{count} {origin}", difference)
        # Whatever can fail has been done: the file and its card come together or not at all.
        write_atomically(text, card)
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
    print(
        f"{output} ({output.stat().st_size / 1e6:.1f} MB) takes uint8 RGB images [batch, height, width, 3] and gives "
        f"the probabilities of {len(predictor.class_names)} classes{_novelty_note(output, predictor)}\n"
        f"largest difference of a probability from PyTorch's: {difference:.1g}, on {count} {origin}\n"
        f"model card: {card}"
    )


def largest_difference(
    exported: Exported, predictor: Predictor, images: Iterable[npt.NDArray[np.uint8]]
) -> tuple[float, float, int]:
    """Compare an exported file with PyTorch, on batches of one and of two images in turns.

    Args:
        exported: uint8 [B, H, W, 3] to probabilities [B, C], and novelty [B] where it is told.
        predictor: What was exported.
        images: uint8 [H, W, 3], of any sizes.

    Returns:
        The largest difference of a probability (NaN where one is) and of a novelty, and the number of images.

    Raises:
        InputError: There is no image.
    """
    differences, of_novelty = [], [0.0]
    for position, image in enumerate(images):
        batch = np.stack([image, image[:, ::-1]][: 1 + position % 2])
        predictions = predictor(list(batch), top_k=len(predictor.class_names))
        if predictions[0].error is None:
            expected = [[dict(item.top_k)[name] for name in predictor.class_names] for item in predictions]
            given, *novelty = exported(batch)
            differences.append(np.abs(given - np.array(expected)).max())
            of_novelty += [np.abs(item - [row.novelty for row in predictions]).max() for item in novelty]
    if not differences:
        raise InputError("--check: none of the images could be read; name others")
    return float(np.max(differences)), float(np.max(of_novelty)), len(differences)


def _novelty_note(output: Path, predictor: Predictor) -> str:
    if predictor.novelty is None:
        return f"; not their novelty: the checkpoint has no summary of its training images ({HOW_TO_MAKE})"
    return " and their novelty" if output.suffix == ".onnx" else ""


@contextmanager
def _without_doubles(model: type) -> Iterator[None]:
    """Tell a model's class from those that torch's exporter derives from it, which bear its name and stay.

    A later command of the same process would else find several classes of the name that a configuration gives.
    """
    try:
        yield
    finally:
        derived: type
        for derived in model.__subclasses__():
            if (derived.__module__, derived.__qualname__) == (model.__module__, model.__qualname__):
                derived.__qualname__ = f"torch_export.<locals>.{model.__name__}"


def _write(predictor: Predictor, file: Path) -> Exported:
    """Export to a file and read it back, ready to run."""
    novelty = predictor.novelty if file.suffix == ".onnx" else None
    graph = ImageClassifier(predictor.model, predictor.temperature, novelty).eval()
    metadata = {
        "class_names": predictor.class_names,
        "image_size": predictor.model.image_size,
        "interpolation": predictor.model.interpolation,
        "resize": predictor.model.resize,
        "value_range": predictor.model.value_range,
        "temperature": predictor.temperature,
        "kth_lightning": __version__,
    }
    example = (torch.zeros(2, 40, 48, 3, dtype=torch.uint8),)
    names = {0: "batch", 1: "height", 2: "width"}
    with torch.no_grad(), _quiet(), _without_doubles(type(predictor.model)):
        if file.suffix == ".pt2":
            sizes = {position: torch.export.Dim(name) for position, name in names.items()}
            program = torch.export.export(graph, example, dynamic_shapes={"images": sizes}, strict=False)
            torch.export.save(program, file, extra_files={"metadata.json": json.dumps(metadata)})
            module = torch.export.load(file).module()
            return lambda images: [module(torch.from_numpy(images)).numpy()]
        onnx = torch.onnx.export(
            graph,
            example,
            input_names=["images"],
            output_names=["probabilities", "novelty"] if novelty else ["probabilities"],
            dynamic_shapes={"images": names},
            dynamo=True,
            verbose=False,
        )
        assert onnx is not None
        onnx.model.metadata_props.update(
            {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
        )
        onnx.save(file, external_data=False)
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' remarks to themselves."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _run_of(checkpoint: Path) -> RunFolder | None:
    run = RunFolder(checkpoint.parent.parent)
    return run if run.best_checkpoint == checkpoint and run.finished else None


def _images(
    paths: Sequence[str], run: RunFolder | None, predictor: Predictor
) -> tuple[Iterable[npt.NDArray[np.uint8]], str]:
    """Find images to check on: those asked for, else test images of the run, else drawn ones; and what they are."""
    if paths:
        return _decoded(list(FoundImages(paths)), predictor), "images given with --check"
    if run:
        with suppress(InputError, OSError):
            return _decoded(_test_images(run), predictor), "test images of its run"
    origin = "drawn images (no test images of its run are here, and none were given with --check)"
    return _drawn(predictor.model.image_size), origin


def _test_images(run: RunFolder) -> list[Path]:
    settings = yaml.safe_load(run.config.read_text(encoding="utf-8"))["data"]
    own = {"splits": str(run.splits), "ignore_new": True, "num_folds": None, "fold": 0}
    parser = Parser()
    parser.add_class_arguments(ImageData, "data")
    data = parser.instantiate(parser.parse_object({"data": settings | own})).data
    positions = data.split.indices("test")
    return [data.catalogue.file(position) for position in positions[:: -(-len(positions) // _CHECKED)]]


def _decoded(files: Sequence[Path], predictor: Predictor) -> Iterator[npt.NDArray[np.uint8]]:
    for file in Progress(files, "checking"):
        with suppress(UnreadableImage):
            yield np.asarray(read_rgb(file, options=predictor.options))


def _drawn(side: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Draw slopes of colour under noise, smaller and larger than the network's images."""
    rng = np.random.default_rng(0)
    for scale in (0.5, 0.7, 1, 1.4, 2, 2.8):
        size = (int(side * scale), int(side * scale * rng.uniform(1, 1.5)))
        corners = Image.fromarray(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8))
        slope = np.asarray(corners.resize(size, Image.Resampling.BILINEAR), dtype=np.float64)
        yield (slope + rng.normal(0, 15, slope.shape)).clip(0, 255).astype(np.uint8)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m kth_lightning export",
        description="Write a checkpoint as one file that other programs run: it takes RGB images, uint8 [batch, "
        "height, width, 3] of any size, and gives probabilities. A model card is written beside it. The file is kept "
        "only if its answers are PyTorch's.",
    )
    add_checkpoint_flags(parser)
    parser.add_argument("--output", required=True, help="The file to write: .onnx, or .pt2 for torch.export.")
    parser.add_argument(
        "--check",
        nargs="+",
        default=[],
        help="Images to compare on: files, folders or globs; test images of the checkpoint's run by default.",
    )
    add_calibrated_flag(parser)
    return parser
