"""Measure how fast this package and its peers train the same networks on the same images, on this machine.

    python scripts/speed.py --peers keras-tensorflow keras-torch fastai pytorch --json runs/speed.json

Each peer gets an environment of its own, made with uv and kept. This package, by its command `fit`, and a peer then
take turns: one works, the other is stopped. A turn is one batch that does not count and some that do (head: five times
as many epochs). Images are the same, a batch has 20 of them, weights are random and the numbers of trained parameters
equal; this package finds its weights in a file, as it does pretrained ones. Peak memory is that of a participant's main
process, without those that load its images.

Exits with 0 only if all that was asked for was measured, and every floor was met.
"""

import argparse
import json
import math
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import timm
import torch
from peers.cases import CASES
from peers.environments import PEERS, make_environment
from peers.judgement import report
from peers.machine import describe_machine, matmul_peaks
from peers.participant import Participant
from tqdm import tqdm

from kth_lightning.data.module import ImageData
from kth_lightning.data.split import Part
from kth_lightning.errors import InputError
from kth_lightning.io.atomic_file import write_atomically

WORKERS = Path(__file__).resolve().parent / "peers"
BATCH_SIZE = 20
WARM_UP, TURNS = 2, 5
FOREVER = "1000000"
PARTS: dict[Part, str] = {"train": "train", "val": "valid"}
"""What the peers call the parts of the split."""


def main() -> int:
    """Measure and judge; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=["keras-tensorflow", "pytorch"])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="what to measure (all)")
    parser.add_argument(
        "--batches", type=int, default=10, help="to time of each, in turns; epochs of the head, 5 x (10)"
    )
    parser.add_argument("--image_size", type=int, default=224, help="in pixels (224)")
    parser.add_argument("--archive", help="of KTH-ANIMALS; the drawn sample where it is left out")
    parser.add_argument("--json", type=Path, help="file for all that was measured")
    parser.add_argument("--env_dir", type=Path, help="for the peers' environments; the user's cache where left out")
    options = parser.parse_args()
    # A stopped process would stay for ever if this one were ended without having ended it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if options.batches < 1:
            raise InputError(f"--batches {options.batches}: give a whole number of at least 1")
        pythons = {name: make_environment(name, options.env_dir) for name in options.peers}
        data = ImageData(archive=options.archive, image_size=options.image_size, batch_size=BATCH_SIZE)
        counts = {part: len(data.split.indices(part)) for part in PARTS}
        turns = min(TURNS, options.batches)
        timed = math.ceil(options.batches / turns)
        needed = (WARM_UP + turns * (1 + timed)) * BATCH_SIZE
        if "extraction" in options.cases and sum(counts.values()) < needed:
            raise InputError(f"--batches {options.batches}: the extraction needs {needed} images; give fewer")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(data.describe(), file=sys.stderr)
    settings = {"image_size": options.image_size, "batch_size": BATCH_SIZE, "turns": turns, "timed_a_turn": timed}
    record: dict[str, Any] = {
        "machine": describe_machine(),
        "images": {"source": "kth" if options.archive else "sample", "classes": data.num_classes, **counts},
        "settings": settings,
        "pairs": [],
        "failures": [],
    }
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        images = Path(folder) / "images"
        _link(data, images)
        weights = Path(folder) / "vgg19.pth"
        _write_random_weights(weights)
        task = settings | {"images": str(images), "weights": str(weights), "classes": data.num_classes} | counts
        pairs = [(case, peer) for case in options.cases for peer in options.peers]
        bar = tqdm(total=len(pairs) * turns, unit="turn")
        for case, peer in pairs:
            with tempfile.TemporaryDirectory(dir=folder) as position:
                try:
                    found = _measure(case, peer, pythons[peer], task, options.archive, Path(position), bar)
                    record["pairs"].append({"case": case, "peer": peer, "participants": found})
                except RuntimeError as error:
                    record["failures"].append(f"{case}, {peer}: {error}")
                    bar.write(record["failures"][-1], file=sys.stderr)
                _save(record, options.json)
        bar.close()
    # Again, since something else may have been at work when it began.
    peaks = record["machine"]["matmul_flops_per_second"]
    for name, peak in matmul_peaks().items():
        peaks[name] = max(peaks[name], peak)
    missed = report(record)
    _save(record, options.json)
    for sentence in record["failures"] + missed:
        print(f"error: {sentence}", file=sys.stderr)
    return 1 if record["failures"] or missed else 0


def _link(data: ImageData, folder: Path) -> None:
    """Lay the very files out in class folders, as the peers want them."""
    for part, name in PARTS.items():
        for index in data.split.indices(part):
            file = data.catalogue.file(int(index)).resolve()
            position = folder / name / f"{int(data.labels[index]):03d}"
            position.mkdir(parents=True, exist_ok=True)
            (position / f"{index:06d}{file.suffix}").symlink_to(file)


def _write_random_weights(file: Path) -> None:
    """Write VGG19's: as with pretrained ones, a run's checkpoints can leave out what a file has."""
    network = timm.create_model("vgg19", num_classes=0, mlp_ratio=1e-3)  # without large dense layers
    torch.save({key: value for key, value in network.state_dict().items() if key.startswith("features.")}, file)


def _measure(
    case: str,
    peer: str,
    python: str,
    task: dict[str, Any],
    archive: str | None,
    folder: Path,
    bar: tqdm,
) -> dict[str, dict[str, Any]]:
    """Have this package and a peer take turns; return what came of each."""
    task = task | {"case": case, "unit": CASES[case].unit}
    with ExitStack() as stack:
        participants: dict[str, Participant] = {}

        def start(name: str, program: list[str], settings: dict[str, str], **more: Any) -> None:
            bar.set_description(f"{case}, {peer}: starting {name}")
            position = folder / name
            position.mkdir()
            said = folder / f"{name}.txt"
            participants[name] = participant = Participant(
                name, program, task | {"folder": str(position)} | more, settings, said
            )
            stack.callback(participant.close)
            trained, expected = participant.facts["parameters"], CASES[case].trained(task["classes"])
            if trained != expected:
                raise RuntimeError(f"{name} has {trained:,} parameters where there should be {expected:,}")
            bar.set_description(f"{case}, {peer}: warming up {name}")
            participant.turn(WARM_UP, 0)

        for name, argv in CASES[case].ours.items():
            command = ["fit", *argv, *(["--data.archive", archive] if archive else [])]
            command += ["--model.weights", task["weights"]] if case != "benchmark" else []
            command += ["--data.image_size", str(task["image_size"]), "--data.batch_size", str(BATCH_SIZE)]
            command += ["--trainer.max_epochs", FOREVER, "--patience", FOREVER, "--trainer.devices", "1"]
            command += ["--run_dir", str(folder / f"{name}-run")]
            start(name, [sys.executable, str(WORKERS / "own_worker.py")], {}, command=command)
        start(peer, [python, str(WORKERS / PEERS[peer].worker)], PEERS[peer].settings)
        bar.set_description(f"{case}, {peer}")
        for _ in range(task["turns"]):
            for participant in participants.values():
                participant.turn(1, task["timed_a_turn"] * CASES[case].repeats)
            bar.update()
        for participant in participants.values():
            participant.end()
        return {
            name: item.facts | {f"seconds_per_{task['unit']}": item.per_unit, "seconds_per_image": item.per_image}
            for name, item in participants.items()
        }


def _save(record: dict[str, Any], file: Path | None) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(json.dumps(record, indent=2) + "\n", file)


if __name__ == "__main__":
    sys.exit(main())
