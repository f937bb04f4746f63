"""The command `fit` on small images, and the figures that it leaves."""

import csv
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = ["--data.image_size", "64", "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--data.batch_size", "8"]
EXACT = ["--trainer.precision", "32-true", "--trainer.deterministic", "true"]


def fit(recipe: str, run_dir: Path, *flags: str) -> list[str]:
    return ["fit", "--config", str(ROOT / recipe), "--run_dir", str(run_dir), *SMALL, *flags]


def run_command(args: list[str]) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "kth_lightning", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)


def history(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "history.csv").open() as stream:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(stream)]
