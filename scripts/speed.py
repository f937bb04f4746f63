"""Measure how fast this package and its peers train the same networks on the same pictures, on this machine.

    python scripts/speed.py --peers keras-tensorflow keras-torch fastai pytorch --json runs/speed.json

Each peer gets an environment of its own, made with uv and kept. This package, by its command `fit`, and a peer then
take turns: one works, the other is stopped. A turn is one batch that does not count and some that do (head: epochs).
Pictures are the same, a batch has 20 of them, weights are random and the numbers of trained parameters equal. Peak
memory is that of a participant's main process, without those that load its pictures.

Exits with 0 only if all that was asked for was measured, and every floor was met.
"""

import argparse
import json
import math
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tabulate
import torch
from platformdirs import user_cache_path
from tqdm import tqdm

from kth_lightning.data.module import PictureData
from kth_lightning.data.split import Part
from kth_lightning.errors import InputError
from kth_lightning.results.run_folder import write_atomically

ROOT = Path(__file__).resolve().parents[1]
WORKERS = Path(__file__).resolve().parent / "peers"
OURS = "kth_lightning"
BATCH_SIZE = 20
WARM_UP, TURNS = 2, 5
FOREVER = "1000000"
PARTS: dict[Part, str] = {"train": "train", "val": "valid"}
"""What the peers call the parts of the split."""


@dataclass(frozen=True)
class Peer:
    """Name what others would use.

    Attributes:
        worker: File in `peers/`.
        requirements: Of its environment; there is always Pillow, which reads the pictures of all.
        settings: Environment variables.
    """

    worker: str
    requirements: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)


KERAS = ("keras==3.15.1", "scipy==1.17.1")  # Keras augments pictures by SciPy
TORCH = ("torch==2.15.0", "torchvision==0.29.2", "timm==1.0.31")
TENSORFLOW = f"tensorflow{'[and-cuda]' if torch.cuda.is_available() else ''}==2.21.0"
PEERS = {
    "keras-tensorflow": Peer("keras_worker.py", (*KERAS, TENSORFLOW), {"KERAS_BACKEND": "tensorflow"}),
    "keras-torch": Peer("keras_worker.py", (*KERAS, TORCH[0]), {"KERAS_BACKEND": "torch"}),
    "fastai": Peer("fastai_worker.py", ("fastai==2.8.12", *TORCH)),
    "pytorch": Peer("pytorch_worker.py", TORCH),
}


@dataclass(frozen=True)
class Case:
    """Name what is measured.

    Attributes:
        ours: Flags of `fit` for each of this package's ways to do it; a peer has one.
        parameters: How many numbers are trained (in the extraction: used), without the dense layer.
        unit: What is counted in a turn: "batch" or "epoch".
        dense: Whether there is a dense layer.
    """

    ours: dict[str, list[str]]
    parameters: int
    unit: str = "batch"
    dense: bool = True

    def trained(self, classes: int) -> int:
        """Return the number of parameters that every participant must have."""
        return self.parameters + (513 * classes if self.dense else 0)


def _blog(name: str, *words: str) -> list[str]:
    return ["--config", f"configs/blog/{name}.yaml", *words]


RANDOM = ("--model.weights", "none")
CASES = {
    "benchmark": Case({"benchmark": _blog("benchmark")}, 3_910_784),
    "extraction": Case({"extraction": _blog("head", *RANDOM, "--data.views", "0")}, 20_024_384, dense=False),
    "head": Case({"head": _blog("head", *RANDOM)}, 0, "epoch"),
    "finetune": Case(
        {
            "finetune-fresh": _blog("finetune", *RANDOM),
            "finetune-stored": _blog("finetune", *RANDOM, "--data.views", "1"),
        },
        9_439_232,
    ),
}

FLOORS = {
    "keras-tensorflow": {
        "benchmark": 1.6,
        "extraction": 3.0,
        "head": 2.5,
        "finetune-fresh": 2.2,
        "finetune-stored": 8.0,
    },
    "pytorch": {"head": 1 / 3, "finetune-fresh": 2.2, "finetune-stored": 8.0},
}
"""How many times faster than a peer this package must be; against a bare loop, a third as fast."""

ARTICLE_EPOCHS = {"benchmark": 29, "head": 235, "finetune": 30}
ARTICLE_TRAIN, ARTICLE_ALL = 1460, 1740
"""The pictures that the article trained on, and all it had."""


class Participant:
    """A process that trains in its turns and is stopped between them.

    Args:
        name: Of the participant, for messages.
        command: What starts it.
        task: What it is told to do.
        settings: Environment variables.
        said: File for what it prints.

    Raises:
        RuntimeError: It has ended, with its last words.
    """

    def __init__(self, name: str, command: list[str], task: dict[str, Any], settings: dict[str, str], said: Path):
        self.name = name
        self.said = said
        with said.open("w") as stream:
            # In a session of its own, so that the processes that load its pictures are stopped with it.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                cwd=ROOT,
                env=os.environ | settings,
                text=True,
                start_new_session=True,
            )
        self.per_unit: list[float] = []
        self.per_picture: list[float] = []
        try:
            self.facts = self._ask(task)
        except BaseException:
            self.close()
            raise
        os.killpg(self._process.pid, signal.SIGSTOP)

    def turn(self, untimed: int, timed: int) -> None:
        """Let it work: through some batches or epochs that do not count, and some that do."""
        os.killpg(self._process.pid, signal.SIGCONT)
        answer = self._ask({"untimed": untimed, "timed": timed})
        os.killpg(self._process.pid, signal.SIGSTOP)
        if timed:
            self.per_unit.append(answer["seconds"] / timed)
            self.per_picture.append(answer["seconds"] / answer["pictures"])

    def end(self) -> None:
        """Take its last facts, the peak of its memory among them."""
        os.killpg(self._process.pid, signal.SIGCONT)
        self.facts |= self._ask({})

    def close(self) -> None:
        """End it and all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            words = self.said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"{self.name} has ended: {' '.join(words) or 'without a word'}")
        return json.loads(line)


def main() -> int:
    """Measure and judge; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=["keras-tensorflow", "pytorch"])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="what to measure (all)")
    parser.add_argument("--batches", type=int, default=10, help="to time of each, in turns; of the head, epochs (10)")
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
        pythons = {name: _environment(name, options.env_dir) for name in options.peers}
        data = PictureData(archive=options.archive, image_size=options.image_size, batch_size=BATCH_SIZE)
        counts = {part: len(data.split.indices(part)) for part in PARTS}
        turns = min(TURNS, options.batches)
        timed = math.ceil(options.batches / turns)
        needed = (WARM_UP + turns * (1 + timed)) * BATCH_SIZE
        if "extraction" in options.cases and sum(counts.values()) < needed:
            raise InputError(f"--batches {options.batches}: the extraction needs {needed} pictures; give fewer")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(data.describe(), file=sys.stderr)
    settings = {"image_size": options.image_size, "batch_size": BATCH_SIZE, "turns": turns, "timed_a_turn": timed}
    record: dict[str, Any] = {
        "machine": _machine(),
        "pictures": {"source": "kth" if options.archive else "sample", "classes": data.num_classes, **counts},
        "settings": settings,
        "pairs": [],
        "failures": [],
    }
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        pictures = Path(folder) / "pictures"
        _link(data, pictures)
        task = settings | {"pictures": str(pictures), "classes": data.num_classes} | counts
        pairs = [(case, peer) for case in options.cases for peer in options.peers]
        bar = tqdm(total=len(pairs) * turns, unit="turn")
        for case, peer in pairs:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                try:
                    found = _measure(case, peer, pythons[peer], task, options.archive, Path(place), bar)
                    record["pairs"].append({"case": case, "peer": peer, "participants": found})
                except RuntimeError as error:
                    record["failures"].append(f"{case}, {peer}: {error}")
                    bar.write(record["failures"][-1], file=sys.stderr)
                _save(record, options.json)
        bar.close()
    # Again, since something else may have been at work when it began.
    for name, peak in _matmul_peaks().items():
        _peaks(record)[name] = max(_peaks(record)[name], peak)
    missed = _report(record)
    _save(record, options.json)
    for sentence in record["failures"] + missed:
        print(f"error: {sentence}", file=sys.stderr)
    return 1 if record["failures"] or missed else 0


def _environment(name: str, folder: Path | None) -> str:
    """Make a peer's environment where there is none; return its Python."""
    place = (folder or user_cache_path("kth_lightning") / "peers").resolve() / name
    requirements = [*PEERS[name].requirements, "pillow==13.0.0"]
    python, whole = place / "bin" / "python", place / "requirements.txt"
    wanted = "\n".join([f"# Python {platform.python_version()}", *requirements]) + "\n"
    if whole.exists() and whole.read_text(encoding="utf-8") == wanted:
        return str(python)
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise InputError("uv is missing, which makes the peers' environments; pip install uv")
    print(f"{name}: installing {', '.join(requirements)} into {place}", file=sys.stderr, flush=True)
    for command in (
        ["venv", "--clear", "--quiet", "--python", sys.executable, str(place)],
        ["pip", "install", "--python", str(python), *requirements],
    ):
        if subprocess.run([uv, *command], cwd=ROOT).returncode:
            raise InputError(f"uv could not make the environment of {name} (its message is above)")
    whole.write_text(wanted, encoding="utf-8")
    return str(python)


def _link(data: PictureData, folder: Path) -> None:
    """Lay the very files out in class folders, as the peers want them."""
    for part, name in PARTS.items():
        for index in data.split.indices(part):
            file = data.catalogue.file(int(index)).resolve()
            place = folder / name / f"{int(data.labels[index]):03d}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{index:06d}{file.suffix}").symlink_to(file)


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
            place = folder / name
            place.mkdir()
            said = folder / f"{name}.txt"
            participants[name] = participant = Participant(
                name, program, task | {"folder": str(place)} | more, settings, said
            )
            stack.callback(participant.close)
            trained, expected = participant.facts["parameters"], CASES[case].trained(task["classes"])
            if trained != expected:
                raise RuntimeError(f"{name} has {trained:,} parameters where there should be {expected:,}")
            bar.set_description(f"{case}, {peer}: warming up {name}")
            participant.turn(WARM_UP, 0)

        for name, words in CASES[case].ours.items():
            command = ["fit", *words, *(["--data.archive", archive] if archive else [])]
            command += ["--data.image_size", str(task["image_size"]), "--data.batch_size", str(BATCH_SIZE)]
            command += ["--trainer.max_epochs", FOREVER, "--patience", FOREVER, "--trainer.devices", "1"]
            command += ["--run_dir", str(folder / f"{name}-run")]
            start(name, [sys.executable, str(WORKERS / "own_worker.py")], {}, command=command)
        start(peer, [python, str(WORKERS / PEERS[peer].worker)], PEERS[peer].settings)
        bar.set_description(f"{case}, {peer}")
        for _ in range(task["turns"]):
            for participant in participants.values():
                participant.turn(1, task["timed_a_turn"])
            bar.update()
        for participant in participants.values():
            participant.end()
        return {
            name: each.facts | {f"seconds_per_{task['unit']}": each.per_unit, "seconds_per_picture": each.per_picture}
            for name, each in participants.items()
        }


def _save(record: dict[str, Any], file: Path | None) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(json.dumps(record, indent=2) + "\n", file)


def _machine() -> dict[str, Any]:
    """Describe this machine, and how fast it multiplies matrices."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "matmul_flops_per_second": _matmul_peaks(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def _matmul_peaks() -> dict[str, float]:
    """Return the operations a second of the fastest of some matrix multiplications, in each precision."""
    on_gpu = torch.cuda.is_available()
    together = 50 if on_gpu else 1  # as many as hide the start of the first
    peaks = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        peaks[name] = 0.0
        for side in (1024, 2048, 4096, *([8192] if on_gpu else [])):
            left, right = (torch.rand(side, side, device="cuda" if on_gpu else "cpu").to(dtype) for _ in range(2))
            end = time.perf_counter() + 1
            while (started := time.perf_counter()) < end:
                for _ in range(together):
                    left @ right
                if on_gpu:
                    torch.cuda.synchronize()
                spent = time.perf_counter() - started
                peaks[name] = max(peaks[name], 2 * side**3 * together / spent)
    return peaks


def _report(record: dict[str, Any]) -> list[str]:
    """Print the tables, add their figures to the record, and return which floors were missed."""
    rows, missed = [], []
    record["ratios"] = ratios = []
    for pair in record["pairs"]:
        case, peer, found = pair["case"], pair["peer"], pair["participants"]
        unit = "epoch" if CASES[case].unit == "epoch" else "picture"
        theirs = statistics.median(found[peer][f"seconds_per_{unit}"])
        for way in CASES[case].ours:
            ours, floor = statistics.median(found[way][f"seconds_per_{unit}"]), FLOORS.get(peer, {}).get(way)
            ratio = theirs / ours
            ratios.append({"case": way, "peer": peer, "ours": ours, "theirs": theirs, "ratio": ratio, "floor": floor})
            row = [way, peer, f"s a{'n' * (unit == 'epoch')} {unit}", f"{ours:.3g}", f"{theirs:.3g}", f"{ratio:.2f}"]
            row += [f"{floor:.2f}" if floor else ""]
            row += [f"{found[each]['peak_memory'] / 1e9:.2f}" for each in (way, peer)]
            rows.append([*row, f"{found[way]['parameters']:,}", found[way]["device"], found[peer]["device"]])
            if floor and ratio < floor:
                missed.append(f"{way} is {ratio:.2f} times as fast as {peer}; the floor is {floor:.2f}")
    header = ["case", "peer", "unit", "ours", "peer's", "ratio", "floor", "our peak, GB", "its peak, GB", "parameters"]
    _print(rows, [*header, "our device", "its device"])
    record["work"] = _work(record)
    rows = []
    for way, figures in record["work"].items():
        peak = _peaks(record)["fp32" if figures["precision"] == "32-true" else "bf16"]
        numbers = [f"{figures['flops_per_picture'] / 1e9:.3g}", f"{figures['flops_per_second'] / 1e9:.3g}"]
        share = f"{figures['flops_per_second'] / peak:.1%} of {peak / 1e9:.0f}"
        rows.append([way, figures["precision"], *numbers, share])
    _print(rows, ["ours", "precision", "GFLOP a picture", "GFLOP/s", "of the matrix peak"])
    record["estimates"] = _estimates(record)
    parts = ["benchmark", "extraction", "head", "finetune", "all"]
    rows = [[name, *(f"{some[part]:.0f}" for part in parts)] for name, some in record["estimates"].items()]
    if rows:
        _print(rows, ["seconds for the article's table", *parts])
    return missed


def _peaks(record: dict[str, Any]) -> dict[str, float]:
    return record["machine"]["matmul_flops_per_second"]


def _medians(record: dict[str, Any], unit: str) -> dict[str, dict[str, float]]:
    """Return each participant's median seconds, over all pairs; this package's are named by its ways."""
    seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for pair in record["pairs"]:
        for name, found in pair["participants"].items():
            participant, what = (pair["peer"], pair["case"]) if name == pair["peer"] else (OURS, name)
            seconds[participant][what] += found[f"seconds_per_{unit}"]
    return {name: {what: statistics.median(all_) for what, all_ in some.items()} for name, some in seconds.items()}


def _work(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return how many operations a picture takes in each of this package's ways, and how many it gets a second."""
    work = {}
    seconds = _medians(record, "picture").get(OURS, {})
    for pair in record["pairs"]:
        for way in CASES[pair["case"]].ours:
            flops, precision = (pair["participants"][way][name] for name in ("flops", "precision"))
            rate = flops / seconds[way]
            work[way] = {"flops_per_picture": flops, "flops_per_second": rate, "precision": precision}
    return work


def _estimates(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the seconds that the steps of the article's runs take: its epochs, its numbers of pictures."""
    seconds = {name: dict(some) for name, some in _medians(record, "picture").items()}
    ours = seconds.pop(OURS, {})
    for kind in ("fresh", "stored"):
        rest = {name: each for name, each in ours.items() if not name.startswith("finetune-")}
        tuned = {"finetune": ours[f"finetune-{kind}"]} if f"finetune-{kind}" in ours else {}
        seconds[f"{OURS}, {kind}"] = rest | tuned
    estimates = {}
    for name, some in seconds.items():
        if some.keys() != CASES.keys():  # not all was measured
            continue
        parts = {case: ARTICLE_EPOCHS[case] * ARTICLE_TRAIN * some[case] for case in ARTICLE_EPOCHS}
        parts["extraction"] = ARTICLE_ALL * some["extraction"]
        if name.endswith("stored"):  # for which all pictures go through blocks 1 to 4 once
            parts["finetune"] += ARTICLE_ALL * some["extraction"]
        estimates[name] = parts | {"all": sum(parts.values())}
    return estimates


def _print(rows: list[list[str]], header: list[str]) -> None:
    print(tabulate.tabulate(rows, header, "github", disable_numparse=True), end="\n\n")


if __name__ == "__main__":
    sys.exit(main())
