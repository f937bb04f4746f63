"""Kill commands at random moments, repeat them, and compare what comes of it with runs that were never killed.

    python scripts/faults.py --kills 25

Every trial starts from nothing, on images of the drawn sample, in fp32 and deterministic. Half of the kills come at a
random time, half in the very moment in which a file of a store, a table or a checkpoint is being written. Weights,
figures, predictions and stores must then be equal bit for bit, and nothing that was finished may have been made again.
Exits with 0 only if so.
"""

import argparse
import csv
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tabulate
import torch
from safetensors.torch import load_file
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ["--data.sample_size", "190", "--data.image_size", "64"]
ALONE = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32-true"]
STRICT = [*ALONE, "--trainer.deterministic", "true"]


def _fit(model: str, epochs: int) -> list[str]:
    return ["fit", "--config", f"configs/sample/{model}.yaml", *SAMPLE, *STRICT, "--trainer.max_epochs", str(epochs)]


COMMANDS = {
    "prepare": ["prepare", "--data.sample_size", "190"],
    "benchmark": _fit("benchmark", 6),
    "head": _fit("head", 40),
    "finetune": _fit("finetune", 4),
    "compare": ["compare", "--models", "benchmark", "head", *SAMPLE, *ALONE, "--trainer.max_epochs", "4"],
}


@dataclass
class Trial:
    """What came of one kill.

    Attributes:
        command: A key of `COMMANDS`.
        moment: When the process was killed, in words; empty where it had ended before.
        redone: Finished files that the repeated command made again.
        different: What is not as in the run that was never killed.
        failed: The repeated command's last words, where it failed.
    """

    command: str
    moment: str
    redone: list[str]
    different: list[str]
    failed: str = ""


def main() -> int:
    """Carry out the campaign; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=25, help="how often a process is killed (25)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS), help="which (all)")
    parser.add_argument("--json", type=Path, help="file for the trials, one by one")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        references = {}
        for command in tqdm(options.commands, desc="never killed", unit=""):
            reference, started = Path(folder) / command, time.monotonic()
            failed = _run(command, reference)
            if failed:
                print(f"error: {command} failed without a kill: {failed}", file=sys.stderr)
                return 1
            references[command] = reference, time.monotonic() - started
        bar = tqdm(total=options.kills, desc="kills", unit="")
        turns = itertools.cycle(options.commands)
        while bar.n < options.kills:
            command = next(turns)
            with tempfile.TemporaryDirectory(dir=folder) as position:
                trial = _trial(command, Path(position), *references[command], draw)
            if trial.moment:  # else it had ended before the moment came
                trials.append(trial)
                bar.update()
        bar.close()
    rows = []
    for command in options.commands:
        mine = [trial for trial in trials if trial.command == command]
        counts = [sum(bool(getattr(trial, what)) for trial in mine) for what in ("failed", "redone", "different")]
        rows.append([command, len(mine), *counts])
    print(tabulate.tabulate(rows, ["command", "kills", "failed again", "redone", "different"], "github"))
    bad = [trial for trial in trials if trial.failed or trial.redone or trial.different]
    for trial in bad:
        print(f"{trial.command}, killed {trial.moment}: {trial.failed or trial.redone + trial.different}")
    if options.json:
        options.json.write_text(json.dumps([asdict(trial) for trial in trials], indent=2) + "\n", encoding="utf-8")
    return 1 if bad else 0


def _trial(command: str, position: Path, reference: Path, seconds: float, draw: random.Random) -> Trial:
    process = _start(command, position)
    at_writing = draw.random() < 0.5
    after, number = draw.uniform(0, seconds), draw.randrange(1, 12)
    started, seen = time.monotonic(), set[Path]()
    moment = ""
    while process.poll() is None:
        if at_writing:
            seen |= set(_unfinished(position))
            if len(seen) >= number:
                moment = f"while {max(seen, key=_changed).name} was written"
        elif time.monotonic() - started >= after:
            moment = f"after {after:.1f} s"
        if moment:
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.001 if at_writing else 0.02)
    process.wait()
    finished = {file: _identity(file) for file in _finished(position)}
    failed = _run(command, position)
    redone = [str(file.relative_to(position)) for file, identity in finished.items() if _identity(file) != identity]
    different = [] if failed else list(_differences(reference, position))
    return Trial(command, moment, redone, different, failed)


def _start(command: str, position: Path) -> subprocess.Popen[str]:
    argv = [*COMMANDS[command], *(["--run_dir", str(position / "run")] if command != "prepare" else [])]
    return subprocess.Popen(
        [sys.executable, "-m", "kth_lightning", *argv],
        cwd=ROOT,
        env=os.environ | {"KTH_LIGHTNING_CACHE": str(position / "cache")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _run(command: str, position: Path) -> str:
    process = _start(command, position)
    _, said = process.communicate(timeout=1800)
    return said.strip().splitlines()[-1] if process.returncode else ""


def _unfinished(position: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(position):  # files come and go under it
        yield from (Path(folder) / name for name in names if name.endswith((".part", ".tmp")))


def _changed(file: Path) -> float:
    return file.stat().st_mtime if file.exists() else 0.0


def _finished(position: Path) -> list[Path]:
    """List what a repeated command has no reason to touch: stores, tables, and all of a run that has its figures."""
    files = [*position.glob("cache/pixels/*/*.safetensors"), *position.glob("cache/features/*/*.safetensors")]
    files += position.glob("cache/catalogues/*/*")
    for sample in position.glob("cache/sample-*"):
        files += [] if sample.suffix else sample.rglob("*")
    for metrics in position.glob("run/**/metrics.json"):
        if "test" in json.loads(metrics.read_text(encoding="utf-8")):
            files += [metrics, *metrics.parent.glob("checkpoints/*.ckpt"), *metrics.parent.glob("*.csv")]
    return [file for file in files if file.is_file() and file.suffix not in (".lock", ".part", ".tmp")]


def _identity(file: Path) -> tuple[int, int]:
    state = file.stat()
    return state.st_ino, state.st_mtime_ns


def _differences(reference: Path, position: Path) -> Iterator[str]:
    """Name what is not equal to the reference, bit for bit."""
    for pattern in ("cache/catalogues/*/*.csv", "run/**/*.csv", "run/**/*.json", "run/**/*.ckpt"):
        ours, theirs = (_by_name(folder, pattern) for folder in (position, reference))
        if ours.keys() != theirs.keys():
            yield f"the files {pattern}"
        yield from (name for name in ours.keys() & theirs.keys() if _content(ours[name]) != _content(theirs[name]))
    rows, expected = (_rows(folder) for folder in (position, reference))
    if rows != expected:
        yield "stored rows"


def _by_name(folder: Path, pattern: str) -> dict[str, Path]:
    # A catalogue's folder is named by where its images lie.
    named = folder.glob(pattern)
    return {str(file.relative_to(folder)) if pattern.startswith("run") else file.name: file for file in named}


def _content(file: Path) -> Any:
    if file.suffix == ".ckpt":
        return _comparable(torch.load(file, weights_only=True, map_location="cpu"))
    if file.suffix == ".json":
        return _comparable(json.loads(file.read_text(encoding="utf-8")))
    if file.name == "history.csv":
        with file.open(encoding="utf-8", newline="") as stream:
            return [_comparable(row) for row in csv.DictReader(stream)]
    return file.read_bytes()


def _comparable(value: Any) -> Any:
    """Make a checkpoint or figures comparable: tensors as bytes, without what is a matter of the clock."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items() if not _of_the_clock(key)}
    if isinstance(value, list | tuple):
        return [_comparable(item) for item in value]
    return value


def _of_the_clock(key: object) -> bool:
    return isinstance(key, str) and (key.startswith("seconds") or key in ("callbacks", "loops"))


def _rows(folder: Path) -> dict[tuple[str, int, int], bytes]:
    rows = {}
    for file in folder.glob("cache/*/*/*.safetensors"):
        chunk = load_file(file)
        for image, view, row in zip(chunk["image"], chunk["view"], chunk["rows"], strict=True):
            rows[file.parent.name, int(image), int(view)] = (
                row.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())
