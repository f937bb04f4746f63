"""Measure how time, anonymous memory and disk grow with the number of images, up to 100,000 of them.

    python scripts/scale.py --sizes 1700 10000 100000 --json runs/scale.json --vgg

The images are drawn first, which is not timed. Then each command runs as a process of its own, on empty stores:
`prepare`, `fit` of a head on EfficientNet-Lite0, another `fit` on the stores that the first has filled, and `predict`.
With `--vgg` so do a head on VGG19 and VGG19 with block 5 trained, on up to 10,000 images of 64 pixels. Ten times a
second the process and its children are looked at. What the file of measurements holds is not measured again.

Exits with 0 only if all was measured, times do not rise above a line, and no process held more than 4 GB of anonymous
memory (RssAnon), nor more for each further image than its rows in tables take.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tabulate
from PIL import Image
from scipy.optimize import nnls
from tqdm import tqdm

from kth_lightning.data.images import read_rgb
from kth_lightning.data.sources.sample import SampleSource
from kth_lightning.errors import InputError
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ((200, 160), (160, 200))  # pixels, width and height
DRAWINGS = 180
NEAR_DUPLICATE = 100  # one image of so many is the one before it, saved anew
EPOCHS = 3
FEWEST = 1_000
MOST_FOR_VGG = 10_000

LINEAR = 0.25
"""How far the time of the most images may lie above the line, as a share of it.

Processor time is judged, which other load on the machine changes little.
"""
MOST_MEMORY = 4e9
ALLOWED, ALLOWED_EACH = 300e6, 2000
"""Bytes by which the peak of anonymous memory may rise: in all, and for each image, whose row of the catalogue alone
takes 1000 of them. The former are for what a thousand test images reach: TensorBoard's projector takes no more."""

Phases = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Subject:
    """Name a model to measure.

    Attributes:
        name: In the table.
        class_path: The model.
        backbone: As timm calls it.
        image_size: In pixels.
        most: On how many images at most.
    """

    name: str
    class_path: str
    backbone: str
    image_size: int
    most: float = float("inf")


def main() -> int:
    """Measure and judge; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_700, 10_000, 100_000], help="numbers of images")
    parser.add_argument("--json", type=Path, required=True, help="file of measurements, which is gone on with")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="of the head (tf_efficientnet_lite0)")
    parser.add_argument("--image_size", type=int, default=96, help="in pixels (96)")
    parser.add_argument("--vgg", action="store_true", help=f"VGG19 as well, on up to {MOST_FOR_VGG:,} images")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/scale"), help="for images and stores (runs/scale)")
    options = parser.parse_args()
    settings = {"backbone": options.backbone, "image_size": options.image_size, "epochs": EPOCHS}
    if not Path("/proc/self/status").exists():
        print("error: anonymous memory is read from Linux's /proc, and there is none", file=sys.stderr)
        return 2
    if min(options.sizes) < FEWEST:
        print(f"error: --sizes {min(options.sizes)}: give at least {FEWEST:,}, which take long enough", file=sys.stderr)
        return 2
    try:
        record = json.loads(options.json.read_text(encoding="utf-8"))
        if record["settings"] != settings:
            print(f"error: {options.json} was measured with {record['settings']}; give another", file=sys.stderr)
            return 2
    except FileNotFoundError:
        record = {"settings": settings, "sizes": {}}
    except (OSError, ValueError, KeyError, TypeError):
        print(f"error: --json {options.json} is no file of measurements; give another", file=sys.stderr)
        return 2
    subjects = [Subject("head", "FeatureHead", options.backbone, options.image_size)]
    if options.vgg:
        subjects += [Subject("VGG19 head", "FeatureHead", "vgg19", 64, MOST_FOR_VGG)]
        subjects += [Subject("VGG19 block 5", "FineTuned", "vgg19", 64, MOST_FOR_VGG)]
    sizes = sorted(set(options.sizes))
    try:
        for size in sizes:
            known = record["sizes"].setdefault(str(size), {})
            for name, measured in _measure(size, subjects, options.work_dir.resolve(), known):
                known[name] = measured
                write_atomically(json.dumps(record, indent=2) + "\n", options.json)
    except (InputError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0 if _report(_series(record["sizes"], sizes, subjects)) else 1


def _measure(size: int, subjects: list[Subject], work: Path, known: dict[str, Phases]) -> Iterator[tuple[str, Phases]]:
    """Measure what is not known of a size, command by command."""
    position = work / str(size)
    images, cache = position / "images", position / "cache"
    data = ["--data.root", str(images), "--data.cache_dir", str(cache)]

    def run(name: str, argv: list[str], phase: Callable[[], str]) -> Phases:
        _draw(size, work, images)
        print(f"{size:,} images: {name}", file=sys.stderr, flush=True)
        return _run(argv, phase, position / "stderr.txt")

    if "prepare" not in known:
        shutil.rmtree(cache, ignore_errors=True)
        phases = run("prepare", ["prepare", *data], lambda: "prepare")
        phases["prepare"]["disk"] = _bytes(cache / "catalogues")
        yield "prepare", phases
    for subject in subjects:
        if size > subject.most:
            continue
        name = f"{subject.class_path}-{subject.backbone}"
        first, again, table = (
            RunFolder(position / name),
            RunFolder(position / f"{name}-again"),
            position / f"{name}.csv",
        )
        fit = ["fit", "--model", subject.class_path, "--model.backbone", subject.backbone, "--model.weights", "none"]
        fit += [*data, "--data.image_size", str(subject.image_size), "--trainer.accelerator", "cpu"]
        if (command := f"{subject.name}: fit") not in known:
            shutil.rmtree(first.path, ignore_errors=True)
            for kind in ("pixels", "features"):
                shutil.rmtree(cache / kind, ignore_errors=True)
            argv = [*fit, "--trainer.max_epochs", str(EPOCHS), "--run_dir", str(first.path)]
            phases = run(command, argv, lambda cache=cache, run=first: _phase(cache, run))  # type: ignore[misc]
            phases["pixel store"]["disk"] = _bytes(cache / "pixels")
            phases["feature store"]["disk"] = _bytes(cache / "features")
            phases["epoch"]["seconds"] = statistics.median(row["seconds"] for row in first.read_history()[1:])
            phases["epoch"]["cpu"] /= EPOCHS
            yield command, phases
        if (command := f"{subject.name}: fit again") not in known:
            shutil.rmtree(again.path, ignore_errors=True)
            argv = [*fit, "--trainer.max_epochs", "1", "--run_dir", str(again.path)]
            yield command, run(command, argv, lambda run=again: _phase_again(run))  # type: ignore[misc]
        if (command := f"{subject.name}: predict") not in known:
            argv = ["predict", str(images), "--ckpt_path", str(first.best_checkpoint), "--accelerator", "cpu"]
            phases = run(command, [*argv, "--output", str(table)], lambda: "predict")
            phases["predict"]["disk"] = table.stat().st_size
            yield command, phases


def _phase(cache: Path, run: RunFolder) -> str:
    """Tell from the files what a `fit` on empty stores is doing."""
    if not run.config.exists():  # which is written when the pixels are there
        return "pixel store" if any(cache.glob("pixels/*/*")) else "start"
    if not any(file.stat().st_size > 10_000 for file in run.path.glob("events.*")):  # images before the first step
        return "feature store"
    return "epoch" if len(run.read_history()) < EPOCHS else "validation, test, report"


def _phase_again(run: RunFolder) -> str:
    begun = any(file.stat().st_size > 10_000 for file in run.path.glob("events.*"))  # images before the first step
    return "rest" if begun else "start on full stores"


def _run(argv: list[str], phase: Callable[[], str], said: Path) -> Phases:
    """Carry out a command; return the seconds, processor seconds and peak of anonymous memory of each phase."""
    phases: Phases = defaultdict(lambda: {"seconds": 0.0, "cpu": 0.0, "memory": 0.0})
    command = [sys.executable, "-m", "kth_lightning", *argv]
    with said.open("w") as stream:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stream)
        try:
            before, spent = time.monotonic(), 0.0
            while process.poll() is None:
                time.sleep(0.1)
                now, family = phases[phase()], [_state(item) for item in _family(process.pid)]
                now["memory"] = max(now["memory"], *(memory for memory, _ in family))
                now["cpu"] += max(0.0, sum(cpu for _, cpu in family) - spent)
                now["seconds"] += time.monotonic() - before
                before, spent = time.monotonic(), max(spent, sum(cpu for _, cpu in family))
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        last = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"{argv[0]} ended with {process.returncode}: {' '.join(last)}")
    return phases


def _family(process: int) -> list[int]:
    """List a process and all below it."""
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{process}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:  # it has ended meanwhile
        children = []
    return [process, *(item for child in children for item in _family(child))]


def _state(process: int) -> tuple[float, float]:
    """Return a process's bytes of anonymous memory and the processor seconds of it and its ended children."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
        times = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:15]
    except OSError:  # it has ended meanwhile
        return 0.0, 0.0
    kilobytes = next((line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:")), "0")
    return 1024 * float(kilobytes), sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _draw(size: int, work: Path, folder: Path) -> None:
    """Draw images into class folders: pieces of two drawings under a field of colours and noise, no two alike."""
    if folder.exists():
        return
    drawings: dict[str, list[Image.Image]] = defaultdict(list)
    for candidate in SampleSource(DRAWINGS).list(work).candidates:
        drawings[candidate.label].append(read_rgb(candidate.file))
    labels = sorted(drawings)
    everything = [drawing for label in labels for drawing in drawings[label]]
    noise = Image.effect_noise((400, 400), 40).convert("RGB")
    partial = folder.with_suffix(".partial")
    for label in labels:
        (partial / label).mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(size), desc="drawing", unit="image"):
        again = number % NEAR_DUPLICATE == NEAR_DUPLICATE - 1
        rng = np.random.default_rng(number - again)
        label, shape = labels[(number - again) % len(labels)], SHAPES[rng.integers(2)]
        animal, other = (_piece(some[rng.integers(len(some))], shape, rng) for some in (drawings[label], everything))
        colours = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize(shape)
        left, top = rng.integers(0, 200, 2).tolist()
        grain = noise.crop((left, top, left + shape[0], top + shape[1]))
        image = Image.blend(Image.blend(Image.blend(animal, other, 0.25), colours, 0.2), grain, 0.08)
        image.save(partial / label / f"{number:06d}.jpg", quality=70 if again else 85)
    partial.rename(folder)


def _piece(drawing: Image.Image, shape: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    width, height = rng.uniform(0.5, 0.95, 2) * drawing.size
    left, top = rng.uniform(0, drawing.width - width), rng.uniform(0, drawing.height - height)
    piece = drawing.resize(shape, Image.Resampling.BILINEAR, (left, top, left + width, top + height))
    return piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else piece


SHOWN = {
    "prepare": ("prepare",),
    "fit": ("pixel store", "feature store", "epoch", "validation, test, report"),
    "fit again": ("start on full stores",),
    "predict": ("predict",),
}


def _series(
    sizes: dict[str, dict[str, Phases]], wanted: list[int], subjects: list[Subject]
) -> dict[tuple[str, str], dict[int, dict[str, float]]]:
    """Order the measurements by what was done, then by size."""
    series: dict[tuple[str, str], dict[int, dict[str, float]]] = defaultdict(dict)
    for size in wanted:
        for phase, figures in sizes[str(size)]["prepare"].items():
            series["", phase][size] = figures
        for subject in subjects:
            for command in ("fit", "fit again", "predict") if size <= subject.most else ():
                for phase in SHOWN[command]:
                    series[subject.name, phase][size] = sizes[str(size)][f"{subject.name}: {command}"][phase]
    return series


def _report(series: dict[tuple[str, str], dict[int, dict[str, float]]]) -> bool:
    """Print both tables; tell whether all is linear and flat."""
    rows: list[list[str | float]] = []
    judgements = []
    for name, by_size in series.items():
        for size, figures in by_size.items():
            disk = f"{figures['disk'] / 1e6:.1f}" if "disk" in figures else ""
            spent = [figures["seconds"], figures["cpu"], 1000 * figures["cpu"] / size]
            rows.append([*name, f"{size:,}", *spent, figures["memory"] / 1e6, disk])
        judgements.append(_judge(by_size))
    header = ["model", "part", "images", "seconds", "CPU s", "CPU s / 1000 images", "RssAnon, MB", "disk, MB"]
    print(tabulate.tabulate(rows, header, "github", floatfmt=".3g", disable_numparse=[2, 7]))
    print()
    header = ["model", "part", "line, CPU s", "beside it", "time", "RssAnon rises by", "memory"]
    verdicts = [[*name, *judgement] for name, judgement in zip(series, judgements, strict=True)]
    print(tabulate.tabulate(verdicts, header, "github", disable_numparse=True))
    return all(time == "linear" and memory == "flat" for _, _, time, _, memory in judgements)


def _judge(by_size: dict[int, dict[str, float]]) -> tuple[str, str, str, str, str]:
    """Fit the line of the least relative errors, neither part of it negative, and look how memory rises."""
    sizes = np.array(list(by_size), dtype=float)
    spent, memory = (np.array([figures[what] for figures in by_size.values()]) for what in ("cpu", "memory"))
    (fixed, item), _ = nnls(np.stack([1 / spent, sizes / spent], axis=1), np.ones(len(sizes)))
    beside = spent / (fixed + item * sizes) - 1
    rise, allowed = float(memory.max() - memory[0]), ALLOWED + ALLOWED_EACH * (sizes[-1] - sizes[0])
    return (
        f"{fixed:.3g} + {1000 * item:.3g} / 1000",
        ", ".join(f"{share:+.0%}" for share in beside),
        "linear" if beside[-1] <= LINEAR else "NOT LINEAR",
        f"{rise / 1e6:.0f} MB of {allowed / 1e6:.0f}",
        "flat" if rise <= allowed and memory.max() <= MOST_MEMORY else "GROWS",
    )


if __name__ == "__main__":
    sys.exit(main())
