"""The command `export`."""

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from kth_lightning.cli.checkpoint_flags import add_calibrated_flag, add_checkpoint_flags, import_model_class
from kth_lightning.cli.export_int8 import (
    add_int8_flags,
    check_int8_flags,
    comparison_lines,
    comparison_text,
    write_int8,
)
from kth_lightning.cli.parser import Parser
from kth_lightning.cli.run_images import add_place_flags, places_of_run
from kth_lightning.data.box import FileOrCrop
from kth_lightning.data.images import UnreadableImage, read_rgb
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.evaluation.novelty import HOW_TO_MAKE
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.find_images import FoundImages
from kth_lightning.io.progress import Progress
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.predict.exported_file import Exported, largest_difference, write_exported
from kth_lightning.predict.model_card import model_card
from kth_lightning.predict.predictor import Predictor

TOLERANCE = 1e-3
"""Largest difference of a probability between an exported file and PyTorch."""

NOVELTY_TOLERANCE = 0.02
"""Largest difference of a novelty, or that of two images that it is a share of: rounding may move one past some."""

_CHECKED = 24  # images


def export_command(argv: list[str]) -> None:
    """Write a checkpoint as ONNX or torch.export file, check it against PyTorch, and write a model card beside it.

    With `--quantize int8` the file computes in int8 and is compared with the one in float32, which then is not kept;
    the comparison is written beside it as JSON.

    Args:
        argv: The command line behind `export`.

    Raises:
        InputError: The checkpoint, the file's name or an image cannot be used, a package is missing, the exported file
            does not say what PyTorch says, or int8 costs more accuracy than is allowed.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    output = Path(options.output).expanduser()
    if output.suffix not in (".onnx", ".pt2") or output.is_dir():
        raise InputError(f"--output: {output} does not end in .onnx or .pt2; give a file name that does")
    card, figures = (output.with_name(f"{output.name}{suffix}") for suffix in (".md", ".json"))
    max_loss = check_int8_flags(options, output)
    for file, name in ((card, "model card"), *([(figures, "comparison")] if options.quantize else [])):
        if file.is_dir():
            raise InputError(f"--output: the {name} cannot be written, {file} is a folder; give another place")
    if output.suffix == ".onnx" and not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        raise InputError(
            "--output: ONNX needs a package that is not installed; run uv pip install '.[export]' in the clone"
        )
    kind = import_model_class(options.model_class)
    predictor = Predictor(options.ckpt_path, "cpu", options.calibrated, model_class=kind)
    run = _run_of(Path(options.ckpt_path).resolve())
    if options.quantize and run is None:
        raise InputError(
            f"--quantize needs the images of the run, and {options.ckpt_path} is not checkpoints/best.ckpt of a "
            "finished run folder; give that file"
        )
    data = _data(parser, argv, run, predictor)
    images, origin = _images(options.check, data, predictor)
    temporary = output.with_name(f".{output.stem}.{os.getpid()}{output.suffix}")
    int8 = temporary.with_stem(f"{temporary.stem}.int8")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise InputError(f"--output: cannot write {output} ({error.strerror}); give another place") from None
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left half written
    try:
        print(f"exporting {type(predictor.model).__name__} ...", file=sys.stderr)
        try:
            exported = write_exported(predictor, temporary)
        except RuntimeError as error:  # of torch's exporters, whatever they stumble over
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"--ckpt_path: torch cannot export {options.ckpt_path} ({reason})") from None
        difference, checked = _check(exported, predictor, images, origin, output)
        comparison = None
        if options.quantize:
            assert run
            assert data
            comparison = write_int8(temporary, int8, output, data, run, max_loss)
        text = model_card(output, predictor, run, checked, difference, comparison)
        # Whatever can fail has been done: the file and what tells of it come together or not at all.
        write_atomically(text, card)
        if comparison:
            write_atomically(comparison_text(comparison, int8), figures)
        (int8 if comparison else temporary).replace(output)
    finally:
        temporary.unlink(missing_ok=True)
        int8.unlink(missing_ok=True)
        signal.signal(signal.SIGTERM, before)
    print(
        f"{output} ({output.stat().st_size / 1e6:.1f} MB) takes uint8 RGB images [batch, height, width, 3] and gives "
        f"the probabilities of {len(predictor.class_names)} classes{_novelty_note(output, predictor)}\n"
        f"largest difference of a probability from PyTorch's{' in float32' if comparison else ''}: {difference:.1g}, "
        f"on {checked}"
    )
    if comparison:
        print(f"{comparison_lines(comparison)}\ncomparison: {figures}")
    print(f"model card: {card}")


def _check(
    exported: Exported, predictor: Predictor, images: Iterable[npt.NDArray[np.uint8]], origin: str, output: Path
) -> tuple[float, str]:
    """Return the largest difference of a probability from PyTorch's, and how many images of what origin it is from.

    Raises:
        InputError: It is more than rounding, or that of the novelty is.
    """
    difference, of_novelty, count = largest_difference(exported, predictor, images)
    if not difference <= TOLERANCE:
        raise InputError(
            f"--output: {output} is not written: its probabilities would differ from PyTorch's by {difference:.1g} "
            f"on {origin}, which is more than rounding ({TOLERANCE}); please report it"
        )
    few = 0 if predictor.novelty is None else 2.5 / predictor.novelty.compared
    if not of_novelty <= max(NOVELTY_TOLERANCE, few):
        raise InputError(
            f"--output: {output} is not written: its novelty would differ from PyTorch's by {of_novelty:.1g} on "
            f"{origin}, which is more than rounding; please report it"
        )
    return difference, f"{count} {origin}"


def _novelty_note(output: Path, predictor: Predictor) -> str:
    if predictor.novelty is None:
        return f"; not their novelty: the checkpoint has no summary of its training images ({HOW_TO_MAKE})"
    return " and their novelty" if output.suffix == ".onnx" else ""


def _run_of(checkpoint: Path) -> RunFolder | None:
    run = RunFolder(checkpoint.parent.parent)
    return run if run.best_checkpoint == checkpoint and run.finished else None


def _data(parser: Parser, argv: Sequence[str], run: RunFolder | None, predictor: Predictor) -> ImageData | None:
    """Find the run's images; None where they are not here, unless they were asked for."""
    if run is None:
        return None
    asked = any(word.startswith(("--quantize", "--data.")) for word in argv)
    with nullcontext() if asked else suppress(InputError, OSError):
        places = places_of_run(run.best_checkpoint, "--ckpt_path")
        own = {"data.ignore_new": True, "data.value_range": predictor.model.value_range}
        parser.set_defaults(places | own)
        data: ImageData = parser.instantiate(parser.parse_args(argv)).data
        assert data.split
        return data
    return None


def _images(
    paths: Sequence[str], data: ImageData | None, predictor: Predictor
) -> tuple[Iterable[npt.NDArray[np.uint8]], str]:
    """Find images to check on: those asked for, else test images of the run, else drawn ones; and what they are."""
    if paths:
        return _decoded(list(FoundImages(paths)), predictor), "images given with --check"
    if data:
        positions = data.split.indices("test")
        files = [data.catalogue.pixels(position) for position in positions[:: -(-len(positions) // _CHECKED)]]
        return _decoded(files, predictor), "test images of its run"
    origin = "drawn images (no test images of its run are here, and none were given with --check)"
    return _drawn(predictor.model.image_size), origin


def _decoded(files: Sequence[FileOrCrop], predictor: Predictor) -> Iterator[npt.NDArray[np.uint8]]:
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
        "only if its answers are PyTorch's, or with --quantize if it loses little accuracy.",
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
    add_int8_flags(parser)
    add_place_flags(parser)
    return parser
