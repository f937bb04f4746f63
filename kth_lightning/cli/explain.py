"""The command `explain`."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from kth_lightning.cli.box_flags import add_box_flags
from kth_lightning.cli.checkpoint_flags import add_checkpoint_flags, import_model_class
from kth_lightning.cli.parser import Parser
from kth_lightning.cli.predict import add_read_arguments, choose_devices
from kth_lightning.cli.run_images import add_place_flags, places_of_run
from kth_lightning.data.box import Crop, FileOrCrop
from kth_lightning.data.images import ReadOptions
from kth_lightning.data.module import ImageData
from kth_lightning.drawing.names import picture_names, write_class_numbers
from kth_lightning.errors import InputError
from kth_lightning.evaluation.localisation import localise
from kth_lightning.evaluation.nearest_images import SHOWN, TrainingImages
from kth_lightning.explain.explanation import Explanation, explain
from kth_lightning.explain.overlay import captioned, overlay
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.csv_text import csv_text, without_empty
from kth_lightning.io.find_images import FoundImages
from kth_lightning.io.image_name import image_name
from kth_lightning.io.output_folder import make_output_folder
from kth_lightning.io.progress import Progress
from kth_lightning.models import Classifier
from kth_lightning.models.checkpoint import load_classifier, read_checkpoint
from kth_lightning.predict.boxed_images import BoxedImages
from kth_lightning.predict.predictor import check_counts, read_options

_SUFFIX = ".map.png"


def explain_command(argv: list[str]) -> None:
    """Draw over images where a classifier looks, and measure on test images with masks how well that finds them.

    The folder gets a PNG file for every image, explain.csv (path, label, probability, overlay, novelty, the three
    nearest training images with their distance, error), and localisation.csv where there are masks. An image that
    cannot be read gets a row that says why.

    Args:
        argv: The command line behind `explain`.

    Raises:
        InputError: A path, the checkpoint or a setting cannot be used.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    check_counts(top_k=options.top_k)
    if bool(options.paths) == options.test_set:
        raise InputError("give images to explain, or --test_set true for the test images of the checkpoint's run")
    if options.boxes is not None and options.test_set:
        raise InputError("--boxes goes with images; the boxes of the test images are those of --data.boxes")
    if options.data.boxes is not None and not options.test_set:
        raise InputError("--data.boxes goes with --test_set true; give the boxes of images with --boxes")
    output = Path(options.output).expanduser().absolute()
    listed = FoundImages(options.paths) if options.paths else None
    own = [file for file in listed or () if not _is_ours(file, output)]
    if listed and not own:
        raise InputError(
            f"{options.paths[0]} has no images except overlays that this command wrote; name another folder"
        )
    images = BoxedImages(own, options.paths, options.boxes, options.min_box_confidence, options.without_box)
    device = choose_devices(options.accelerator, 1)[0]
    model = load_classifier(options.ckpt_path, device, import_model_class(options.model_class))
    data = None
    files = [*images]
    if listed:
        if not files:
            raise InputError(f"--boxes {options.boxes}: no image has a box; leave out --without_box leave_out")
        how = read_options(model, options.value_range, options.max_pixels)
    else:
        parser.set_defaults(
            places_of_run(Path(options.ckpt_path), "--test_set") | {"data.value_range": model.value_range}
        )
        data = parser.instantiate(parser.parse_args(argv)).data
        files = [data.catalogue.pixels(position) for position in data.split.indices("test")]
        how = data.catalogue.read_options
    try:
        make_output_folder(output, "--output")
    except OSError as error:
        raise InputError(f"--output: cannot make the folder {output} ({error.strerror}); give another") from None
    training = TrainingImages(Path(options.ckpt_path))
    print(_draw(model, training, files, options.top_k, output, how) + (listed.passed_over_note() if listed else ""))
    if listed:
        for note in images.notes(bool(read_checkpoint(options.ckpt_path).get("boxed"))):
            print(note)
    if data is not None:
        print(_measure(model, data, output))


def _parser() -> Parser:
    parser = Parser(
        prog="python -m kth_lightning explain",
        description="Draw over each image which regions count for the predicted class (an activation map): over "
        "image files, or over the test images of the checkpoint's run. Where these have masks, the maps are measured "
        "against them.",
    )
    parser.add_argument(
        "paths", nargs="*", help="Image files, folders (with all below them) and globs, such as 'photos/**/*.jpg'."
    )
    add_checkpoint_flags(parser)
    add_box_flags(parser)
    parser.add_argument("--output", required=True, help="Output folder for the overlays and their table, explain.csv.")
    parser.add_argument("--top_k", type=int, default=3, help="Number of classes written below each image.")
    parser.add_argument(
        "--test_set", type=bool, default=False, help="Explain the test images of the checkpoint's run instead."
    )
    add_read_arguments(parser)
    parser.add_argument(
        "--accelerator", type=Literal["auto", "cpu", "gpu"], default="auto", help="Device to compute on."
    )
    add_place_flags(parser)
    return parser


def _is_ours(file: Path, output: Path) -> bool:
    return file.name.endswith(_SUFFIX) and output in file.absolute().parents


def _draw(
    model: Classifier,
    training: TrainingImages,
    files: Sequence[FileOrCrop],
    top_k: int,
    output: Path,
    options: ReadOptions,
) -> str:
    paths = [file.file if isinstance(file, Crop) else file for file in files]
    positions = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100  # resolve() would follow links
    root = os.path.commonpath([position.parent for position in positions])
    rows: list[list[str]] = []
    failed: list[str] = []
    explanations, shown = explain(model, files, options=options), picture_names(model.class_names)
    write_class_numbers(model.class_names, output)
    bar = Progress(files, "explaining")
    for file, position, explanation in zip(bar, positions, explanations, strict=True):
        path, box = (_text(file.file), str(file.box)) if isinstance(file, Crop) else (_text(file), "")
        if not isinstance(explanation, Explanation):
            failed.append(f"{image_name(path, box)} ({explanation})")
            rows.append([path, box, "", "", "", *_nearest(training, None), str(explanation)])
            continue
        best = explanation.probabilities.argsort(stable=True)[::-1][:top_k]
        near = _nearest(training, explanation)
        names, probabilities = [model.class_names[item] for item in best], explanation.probabilities[best].tolist()
        drawn = output / f"{image_name(str(position.relative_to(root)), box)}{_SUFFIX}"
        seen = overlay(explanation.image, explanation.map, model.square)
        image = captioned(seen, [shown[item] for item in best], probabilities)
        try:
            drawn.parent.mkdir(parents=True, exist_ok=True)
            image.save(drawn)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            reason = f"its overlay cannot be written: {error.strerror}"  # such as a name that the suffix makes too long
            failed.append(f"{image_name(path, box)} ({reason})")
            rows.append([path, box, names[0], f"{probabilities[0]:.6g}", "", *near, reason])
            continue
        rows.append([path, box, names[0], f"{probabilities[0]:.6g}", _text(drawn.relative_to(output)), *near, ""])
    ranks = [name for rank in range(1, SHOWN + 1) for name in (f"nearest_{rank}", f"distance_{rank}")]
    header = ["path", "box", "label", "probability", "overlay", "novelty", *ranks, "error"]
    write_atomically(csv_text(without_empty([header, *rows], "box")), output / "explain.csv")
    errors = f", {len(failed)} could not be, such as {failed[0]}" if failed else ""
    return f"{len(rows) - len(failed)} of {len(rows)} images explained{errors}; maps and explain.csv are in {output}"


def _nearest(training: TrainingImages, explanation: Explanation | None) -> list[str]:
    """Return the cells of novelty and of the nearest training images; what there is not is left empty."""
    cells = [""] * (1 + 2 * SHOWN)
    if explanation is not None and (share := training.share(explanation.vector, explanation.logits)) is not None:
        cells[0] = f"{share:.4g}"
        found = [cell for item in training.nearest(explanation.vector) for cell in (item.name, f"{item.distance:.4g}")]
        cells[1 : 1 + len(found)] = found
    return cells


def _text(path: Path) -> str:
    return os.fsencode(path).decode(errors="backslashreplace")


def _measure(model: Classifier, data: ImageData, output: Path) -> str:
    localisation = localise(model, data.catalogue, data.split.indices("test").tolist())
    if localisation is None:
        return f"{_lack(data)}, so the maps cannot be evaluated"
    names = list(localisation.rows[0])
    rows = [[row[name] for name in names] for row in localisation.rows]
    write_atomically(csv_text([names, *rows]), output / "localisation.csv")
    summary, whole = localisation.summary, localisation.summary["whole_picture"]
    lines = [
        f"maps of the true class on {summary['n']} test images with masks (95 % interval; what a uniform map gets):"
    ]
    for name, title in (
        ("pointing", "highest value on an object"),
        ("iou_mask", "overlap (IoU) with the objects"),
        ("iou_box", "overlap (IoU) with the box of an object"),
    ):
        value, low, high = (summary[name][key] for key in ("value", "low", "high"))
        bounds = f"{low:.3f}–{high:.3f}; " if low is not None else ""
        lines.append(f"  {title}: {value:.3f} ({bounds}{whole[name]:.3f})")
    return "\n".join([*lines, *filter(None, [localisation.remark])])


def _lack(data: ImageData) -> str:
    if not any(data.catalogue.mask_file(position) for position in data.split.indices("test").tolist()):
        return "the test images have no masks"
    background = "0" if data.catalogue.mask_background == "zero" else "the highest value"
    return f"no mask of the test images can be read and shows an object ({background} is the background)"
