"""Change the code in small ways, one at a time, and see whether the tests of that module notice (mutation testing).

    uv run --all-extras --with cosmic-ray python scripts/mutate.py split pixels --mutants 100

cosmic-ray makes the mutants and runs the tests, on a copy of the working tree; of all mutants of a subject, as many as
asked for are drawn. Ends with a table and the difference that each survivor made, for a person to judge: it is a gap in
the tests, or it changes nothing that can be seen.
"""

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import chdir
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import tabulate
from cosmic_ray.commands.execute import execute
from cosmic_ray.commands.init import init
from cosmic_ray.config import ConfigDict
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import WorkerOutcome, WorkItem, WorkResult

ROOT = Path(__file__).resolve().parents[1]
ENDLESS = 5
"""A mutant is stopped, and counts as noticed, when its tests take this many times as long as those of the real code."""


class Subject(NamedTuple):
    """Name modules and the tests that are theirs; `within` are the definitions that are mutated, all where empty."""

    modules: list[str]
    tests: list[str]
    within: tuple[str, ...] = ()


METRICS = ("_losses", "_predict", "_keep", "_logits_of_features", "_log_epoch", "training_losses", "predictions")
SUBJECTS = {
    "split": Subject(["kth_lightning/data/split.py"], ["tests/data/test_split.py"]),
    "statistics": Subject(["kth_lightning/evaluation/statistics.py"], ["tests/evaluation/test_statistics.py"]),
    "metrics": Subject(["kth_lightning/models/base.py"], ["tests/models/test_models.py"], METRICS),
    "store": Subject(["kth_lightning/stores/store.py"], ["tests/stores/test_store.py"]),
    "pixels": Subject(["kth_lightning/data/pixels.py", "kth_lightning/data/square.py"], ["tests/data/test_pixels.py"]),
}


def main() -> int:
    """Carry out the campaign; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("subjects", nargs="*", default=list(SUBJECTS), help=f"some of {', '.join(SUBJECTS)} (all)")
    parser.add_argument(
        "--mutants", type=int, default=200, help="how many of a subject's mutants are tried at most (200)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the drawing (0)")
    options = parser.parse_args()
    if unknown := set(options.subjects) - SUBJECTS.keys():
        parser.error(f"no subject {', '.join(sorted(unknown))}; there are {', '.join(SUBJECTS)}")
    table = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        for name in ("kth_lightning", "tests", "configs"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, tree)
        for name in options.subjects:
            table.append(_try(name, tree, options.mutants, options.seed))
    print(tabulate.tabulate(table, headers="keys", tablefmt="github"))
    return 0


def _try(name: str, tree: Path, number: int, seed: int) -> dict[str, object]:
    subject = SUBJECTS[name]
    # The tree's own package comes first; it stops at the first failure, since one is enough.
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *subject.tests]
    started = monotonic()
    if subprocess.run(command, cwd=tree, stdout=subprocess.DEVNULL, check=False).returncode:
        raise SystemExit(f"the tests of {name} fail without any change: {' '.join(command)}")
    seconds = monotonic() - started
    config = ConfigDict(
        {"test-command": " ".join(command), "timeout": ENDLESS * seconds + 10, "distributor": {"name": "local"}}
    )
    with use_db(tree / f"{name}.sqlite") as work, chdir(tree):
        init([Path(module) for module in subject.modules], work, {})
        mutants = [item for item in work.work_items if _belongs(item, subject)]
        drawn = random.Random(seed).sample(sorted(mutants, key=_place), min(number, len(mutants)))
        others = {item.job_id for item in work.work_items} - {item.job_id for item in drawn}
        work.set_multiple_results(others, WorkResult(WorkerOutcome.SKIPPED))
        execute(work, config)
        results = [result for _, result in work.results if result.worker_outcome == WorkerOutcome.NORMAL]
    outcomes = Counter(str(result.test_outcome.value) for result in results if result.test_outcome)
    for result in results:
        if not result.is_killed:
            print(f"survived, {name}:\n{result.diff}\n", flush=True)
    return {
        "subject": name,
        "mutants": len(mutants),
        "tried": len(results),
        "noticed": outcomes["killed"],
        "survived": outcomes["survived"],
        "minutes": round((monotonic() - started) / 60, 1),
    }


def _belongs(item: WorkItem, subject: Subject) -> bool:
    mutation = item.mutations[0]
    # Nearly every | stands in a type hint, and `is` for == changes nothing for small numbers.
    if re.search("_BitOr_|_Is(Not)?$", mutation.operator_name):
        return False
    return not subject.within or mutation.definition_name in subject.within


def _place(item: WorkItem) -> tuple[str, tuple[int, int], str, int]:
    mutation = item.mutations[0]
    return str(mutation.module_path), mutation.start_pos, mutation.operator_name, mutation.occurrence


if __name__ == "__main__":
    sys.exit(main())
