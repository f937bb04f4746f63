"""The command `predict`."""

import hashlib
import sys
from contextlib import closing
from itertools import islice, tee
from pathlib import Path
from typing import Literal

import torch
from jsonargparse import Namespace

from kth_lightning.cli.box_flags import add_box_flags
from kth_lightning.cli.checkpoint_flags import add_calibrated_flag, add_checkpoint_flags, import_model_class
from kth_lightning.cli.parser import Parser
from kth_lightning.data.images import MAX_PIXELS
from kth_lightning.errors import InputError
from kth_lightning.evaluation.novelty import HOW_TO_MAKE
from kth_lightning.io.find_images import FoundImages
from kth_lightning.io.progress import Progress
from kth_lightning.predict.boxed_images import BoxedImages
from kth_lightning.predict.parquet_file import require_parquet
from kth_lightning.predict.prediction_file import PredictionFile
from kth_lightning.predict.predictor import Predictor, check_counts


def predict_command(argv: list[str]) -> None:
    """Classify images into a table; a command that was interrupted goes on when it is repeated.

    An image that cannot be read gets a row that says why.

    Args:
        argv: The command line behind `predict`.

    Raises:
        InputError: A path, the checkpoint or a setting cannot be used.
    """
    options = _parser().parse_args(argv)
    check_counts(top_k=options.top_k, batch_size=options.batch_size)
    output = Path(options.output).expanduser()
    if output.suffix.lower() not in (".csv", ".jsonl", ".parquet") or output.is_dir():
        raise InputError(f"--output: {output} does not end in .csv, .jsonl or .parquet; give a file name that does")
    if output.suffix.lower() == ".parquet":
        require_parquet()
    listed = FoundImages(options.paths)
    images = BoxedImages(listed, options.paths, options.boxes, options.min_box_confidence, options.without_box)
    total = sum(1 for _ in Progress(images, "listing"))
    devices = choose_devices(options.accelerator, options.devices)
    kind = import_model_class(options.model_class)
    predictor = Predictor(
        options.ckpt_path,
        devices,
        options.calibrated,
        options.value_range,
        options.max_pixels,
        kind,
        options.min_accuracy,
        options.min_probability,
        options.coverage,
    )
    doubt, top_k = predictor.doubt, min(options.top_k, len(predictor.class_names))
    try:
        withheld, sets = doubt.threshold is not None, doubt.limits is not None
        table = PredictionFile(
            output, _key(options), top_k, withheld, sets, _digest(options.ckpt_path), boxes=bool(options.boxes)
        )
    except OSError as error:
        raise InputError(f"--output: cannot write {output} ({error.strerror}); give another place") from None
    with closing(table):
        done = table.resume(images)
        if done:
            print(f"{done:,} rows are those of an interrupted command", file=sys.stderr)
        written, read = tee(islice(images, done, None))
        predictions = predictor.stream(read, options.top_k, options.batch_size)
        with Progress(name="predicting", total=total, initial=done) as bar:
            for image, prediction in zip(written, predictions, strict=False):
                table.write(image, prediction)
                bar.update()
        table.finish()
    unknown = f", {table.unknown} of them unknown" if doubt.threshold is not None else ""
    errors = f", {table.errors} could not be read, such as {table.first_error}" if table.errors else ""
    for note in [*doubt.notes, *images.notes(predictor.boxed)]:
        print(note)
    if predictor.novelty is None:
        print(f"the column novelty is empty: the checkpoint has no summary of its training images; {HOW_TO_MAKE}")
    print(
        f"{table.rows - table.errors} of {table.rows} images classified{unknown}{errors}{listed.passed_over_note()}; "
        f"the table is {output}"
    )


def choose_devices(accelerator: str, count: int | Literal["auto"]) -> list[torch.device]:
    """Name the devices to work on: the CPU, or GPUs.

    Args:
        accelerator: "auto" for GPUs where there are any, "gpu" or "cpu".
        count: How many GPUs; "auto" for all. The CPU is one device.

    Raises:
        InputError: There are not as many.
    """
    available = torch.accelerator.device_count() if accelerator != "cpu" else 0
    if available == 0 and accelerator != "gpu":
        if count not in ("auto", 1):
            raise InputError(f"--devices {count}: the CPU is one device, with all of its cores; leave it out")
        return [torch.device("cpu")]
    wanted = max(available, 1) if count == "auto" else count
    if not 1 <= wanted <= available:
        raise InputError(
            f"--devices: {wanted} GPUs are asked for, PyTorch sees {available}; give fewer, or --accelerator cpu alone"
        )
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    return [torch.device(kind.type, position) for position in range(wanted)]


def _digest(file: str) -> str:
    """Return what tells a file from others: the beginning of its SHA-256."""
    with Path(file).expanduser().open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _key(options: Namespace) -> str:
    stat = Path(options.ckpt_path).stat()
    how = f"{options.calibrated} {options.value_range} {options.max_pixels}"
    how += f" {options.min_accuracy} {options.min_probability} {options.coverage}"
    if options.boxes is not None:
        how += f" {_digest(options.boxes)} {options.min_box_confidence} {options.without_box}"
    return f"{Path(options.ckpt_path).resolve()} {stat.st_size} {stat.st_mtime_ns} {how}"


def add_read_arguments(parser: Parser) -> None:
    """Add the flags that say how images are read."""
    parser.add_argument(
        "--value_range",
        type=list[float] | None,
        default=None,
        help="The values that are black and white in images deeper than 8 bits, such as [0,4095]; those of training "
        "where left out.",
    )
    parser.add_argument(
        "--max_pixels",
        type=int,
        default=MAX_PIXELS,
        help="The most pixels that are decoded of one image, JPEG at the reduced scale that is enough.",
    )


def _parser() -> Parser:
    parser = Parser(
        prog="python -m kth_lightning predict",
        description="Classify images into a table, one row each: path, label, probability, the next most probable "
        "classes (label_2, probability_2, ...), novelty (the share of validation images that are less unusual) "
        "and error, the reason why an image could not be read. Only the checkpoint is needed.",
    )
    parser.add_argument(
        "paths", nargs="+", help="Image files, folders (with all below them) and globs, such as 'photos/**/*.jpg'."
    )
    add_checkpoint_flags(parser)
    add_box_flags(parser)
    parser.add_argument(
        "--output", required=True, help="The table to write, .csv, .jsonl or .parquet; it appears when complete."
    )
    parser.add_argument("--top_k", type=int, default=3, help="Number of classes in each row.")
    add_calibrated_flag(parser)
    parser.add_argument(
        "--min_accuracy",
        type=float | None,
        default=None,
        help="Write the label `unknown` where a prediction is too uncertain, so that of the other labels this share, "
        "such as .97, is right with 95 percent confidence; the threshold comes from the checkpoint's validation "
        "images.",
    )
    parser.add_argument(
        "--min_probability",
        type=float | None,
        default=None,
        help="Write the label `unknown` below this probability, instead.",
    )
    parser.add_argument(
        "--coverage",
        type=float | None,
        default=None,
        help="Add the column set: classes that include the true one for this share of the images, such as .95.",
    )
    add_read_arguments(parser)
    parser.add_argument("--batch_size", type=int, default=32, help="Batch size on each device.")
    parser.add_argument(
        "--accelerator", type=Literal["auto", "cpu", "gpu"], default="auto", help="Device to compute on."
    )
    parser.add_argument("--devices", type=int | Literal["auto"], default="auto", help="Number of GPUs.")
    return parser
