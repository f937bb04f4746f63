"""Measure what `fit --data.root DIR` takes, from a bare folder to the report and again from full stores, by part.

    python scripts/own_images.py path/to/images --turns 3

Each turn is the real command in a new process with an empty cache, and then once more with what it stored. A thread
looks every 10 ms at what the command is doing; medians of the turns are printed. Leave the machine alone meanwhile.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import median

from tabulate import tabulate

PARTS = {
    "imports": ("<frozen importlib._bootstrap>",),
    "report": ("kth_lightning/report/",),
    "TensorBoard's graph, pictures and points": ("callbacks/tensorboard_views", "callbacks/logged_"),
    "test: figures and activation maps": ("callbacks/test_",),
    "features": ("callbacks/feature_cache",),
    "resizing": ("data/pixels",),
    "training and validation": ("loops/fit_loop",),
    "weights, model and reading": ("cli/fit",),
}
"""What a part is known by: the first that has a file of the stack, as Python names it."""

PAUSE = 0.01


def main() -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", help="a folder with one folder a class")
    parser.add_argument("--turns", type=int, default=3, help="of an empty cache and of full stores each (3)")
    parser.add_argument("--watched", nargs=2, metavar=("FILE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watched:
        _watched(options.root, *options.watched)
        return 0
    seconds: dict[str, list[dict[str, float]]] = {"bare folder": [], "full stores": []}
    for turn in range(options.turns):
        with tempfile.TemporaryDirectory() as folder:
            for start, turns in seconds.items():
                file = Path(folder) / "seconds.json"
                begin = time.perf_counter()
                words = [options.root, "--watched", str(file), f"{folder}/{start}"]
                subprocess.run([sys.executable, __file__, *words], check=True, stderr=subprocess.DEVNULL)
                whole = time.perf_counter() - begin
                parts = json.loads(file.read_text(encoding="utf-8"))
                turns.append({**parts, "the rest": whole - sum(parts.values()), "in all": whole})
                print(f"turn {turn + 1}, {start}: {whole:.1f} s", flush=True)
    names = [*PARTS, "the rest", "in all"]
    rows = [[name, *(median(turn.get(name, 0.0) for turn in turns) for turns in seconds.values())] for name in names]
    print(tabulate(rows, ["seconds", *seconds], tablefmt="github", floatfmt=".1f"))
    return 0


def _watched(root: str, file: str, run_dir: str) -> None:
    """Carry the command out and write down how long it was in each part."""
    seen: Counter[str] = Counter()
    command, ended = threading.main_thread().ident, threading.Event()

    def watch() -> None:
        last = time.perf_counter()
        while not ended.wait(PAUSE):
            frame, files = sys._current_frames().get(command or 0), []
            while frame is not None:
                files.append(frame.f_code.co_filename)
                frame = frame.f_back
            now = time.perf_counter()
            seen[_part(files)] += now - last  # type: ignore[assignment]  # seconds, not counts
            last = now

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        from kth_lightning.cli.main import main as command_line

        command_line(
            ["fit", "--data.root", root, "--run_dir", run_dir, "--data.cache_dir", str(Path(run_dir).parent / "c")]
        )
    finally:
        ended.set()
        watcher.join()
        Path(file).write_text(
            json.dumps({name: float(value) for name, value in seen.items() if name}), encoding="utf-8"
        )


def _part(files: list[str]) -> str:
    return next((part for part, marks in PARTS.items() if any(mark in file for file in files for mark in marks)), "")


if __name__ == "__main__":
    sys.exit(main())
