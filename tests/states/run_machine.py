"""A state machine that does to images and run folders what people do, and holds every run against what it promises.

Commands are carried out in forked processes, some of which are killed. A witness in them writes down the content of
every image that is trained or tested on, so that what a run says of itself is held against what it did.
"""

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from PIL import Image

from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder

CLASSES = 3
EACH = 7
"""Images a class at first."""
LEAST = 5
"""Images a class at least, so that every split has room."""

SMALL = [
    "--data.image_size",
    "32",
    "--trainer.accelerator",
    "cpu",
    "--trainer.devices",
    "1",
    "--trainer.max_epochs",
    "3",
]
SMALL += ["--trainer.limit_train_batches", "2", "--data.batch_size", "8"]
QUIET = ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]
CNN = ["--model", "BenchmarkCNN", "--model.filters", "[2,4]", "--model.block_dropout", "[0,0]", "--patience", "9"]
PRETRAINED = ["--model.backbone", "test_convnext", "--model.weights", "none", "--patience", "9"]
RUNS = {
    "cnn": CNN,
    "other": [*CNN, "--data.split_seed", "1"],
    "head": ["--model", "FeatureHead", *PRETRAINED],
    "tuned": ["--model", "FineTuned", *PRETRAINED, "--data.split_seed", "1"],
}

CHANGES = (
    "move_the_images", "rename_files", "add_images", "remove_an_image", "relabel_an_image", "edit_an_image",
    "rename_a_class",
)  # fmt: skip

LITTLE = {
    "model": {"class_path": "BenchmarkCNN", "init_args": {"filters": [2, 4], "block_dropout": [0, 0]}},
    "trainer": {"logger": False, "enable_progress_bar": False},
}
"""The recipe that is compared."""

_NAMES, _NUMBERS, _FLAGS = st.sampled_from(sorted(RUNS)), st.integers(0, 99), st.booleans()


def _action(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *arguments)


ACTION = st.one_of(
    *[_action("change_the_images", st.sampled_from(CHANGES), _NUMBERS, _NUMBERS)] * 5,
    *[_action("put_back_what_a_run_began_with", _NAMES, _FLAGS)] * 2,
    _action("handle_a_run", st.sampled_from(["move", "delete", "forget the figures of"]), _NAMES),
    *[_action("fit", _NAMES, st.none(), _FLAGS, _FLAGS)] * 4,
    _action("fit", _NAMES, st.sampled_from([1, 2]), _FLAGS, _FLAGS),
    *[_action("test_a_checkpoint", _NAMES, st.integers(0, 9))] * 2,
    _action("report_all_runs"),
    _action("compare", st.sampled_from([None, 1]), _FLAGS, _FLAGS),
)

Pictures = Counter[tuple[str, str]]
"""How often there is an image of a content (sha256) in a class."""


@dataclass
class Known:
    """What is known of a run from outside.

    Attributes:
        run: Its folder, wherever that was moved.
        began: The images that it began with; None where it has not begun.
        contents: Their bytes.
        trained: Contents that its weights were made from, those of what it started from included.
        fixed: Files that must not change any more.
        head: When its head was made, for a run that starts from one.
    """

    run: RunFolder
    began: Pictures | None = None
    contents: dict[str, bytes] = field(default_factory=dict)
    trained: set[str] = field(default_factory=set)
    fixed: dict[str, bytes] = field(default_factory=dict)
    head: int | None = None


class RunMachine(RuleBasedStateMachine):
    """Change images, train, kill, repeat, test and compare in any order."""

    steps = 0
    """Taken by all machines together."""
    outcomes: ClassVar[Counter[str]] = Counter()
    """How often which command ended how."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="machine-"))
        self.images = self.folder / "images"
        self.known = {name: Known(RunFolder(self.folder / "runs" / name)) for name in RUNS}
        self.parts: dict[Path, Known] = {}
        self.drawn = 0
        self.moves = 0
        self.heads = 0
        self.witnessed = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    # One rule: of several, hypothesis would leave out some in each machine.
    @rule(action=ACTION)
    def act(self, action: tuple[Any, ...]) -> None:
        name, *arguments = action
        getattr(self, name)(*arguments)

    @initialize()
    def first_images(self) -> None:
        for number in range(CLASSES):
            for _ in range(EACH):
                self.draw(self.images / f"class{number}")

    # What people do to images

    def draw(self, folder: Path, name: str | None = None) -> None:
        """Put a new image into a class, of a colour of its own under noise."""
        self.drawn += 1
        rng = np.random.default_rng(self.drawn)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 150, (32, 32, 3)) + 100 * np.eye(3, dtype=int)[len(folder.name) % 3]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / (name or f"{self.drawn:04d}.png"))

    def classes(self) -> list[Path]:
        return sorted(self.images.iterdir())

    def spare(self, choice: int) -> Path | None:
        """Choose an image of a class that can do without it."""
        files = [file for folder in self.classes() for file in sorted(folder.iterdir()) if self.size(folder) > LEAST]
        return files[choice % len(files)] if files else None

    @staticmethod
    def size(folder: Path) -> int:
        return sum(1 for _ in folder.iterdir())

    def change_the_images(self, change: str, choice: int, other: int) -> None:
        getattr(self, change)(choice, other)

    def add_images(self, choice: int, other: int) -> None:
        for _ in range(1 + other % 3):
            self.draw(self.classes()[choice % len(self.classes())])

    def remove_an_image(self, choice: int, other: int) -> None:
        if file := self.spare(choice):
            file.unlink()

    def relabel_an_image(self, choice: int, other: int) -> None:
        if file := self.spare(choice):
            self.drawn += 1
            file.rename(self.classes()[other % len(self.classes())] / f"{self.drawn:04d}.png")

    def edit_an_image(self, choice: int, other: int) -> None:
        if file := self.spare(choice):
            self.draw(file.parent, file.name)

    def rename_a_class(self, choice: int, other: int) -> None:
        folder = self.classes()[choice % len(self.classes())]
        self.drawn += 1
        folder.rename(self.images / f"renamed{self.drawn}")

    def rename_files(self, choice: int, other: int) -> None:
        self.moves += 1
        for folder in self.classes():
            files = sorted(folder.iterdir())
            random.Random(choice).shuffle(files)
            for number, file in enumerate(files):
                file.rename(folder / f"{self.moves}-{number}.png")

    def move_the_images(self, choice: int, other: int) -> None:
        self.moves += 1
        self.images = self.images.rename(self.folder / f"images{self.moves}")

    def put_back_what_a_run_began_with(self, name: str, more: bool) -> None:
        """Write a run's images again under other names, and perhaps a new one beside them."""
        known = self.known[name]
        if known.began is None:
            return
        shutil.rmtree(self.images)
        for sha256, label in known.began.elements():
            self.drawn += 1
            file = self.images / label / f"back{self.drawn}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(known.contents[sha256])
        if more:
            self.draw(self.classes()[0])

    # What people do to run folders

    def handle_a_run(self, what: str, name: str) -> None:
        known = self.known[name]
        if what == "delete":
            shutil.rmtree(known.run.path, ignore_errors=True)
            self.known[name] = Known(RunFolder(self.folder / "runs" / name))
            self.heads += name == "head"
        elif what == "move" and known.run.path.exists():
            self.moves += 1
            known.run = RunFolder(known.run.path.rename(self.folder / "runs" / f"{name}{self.moves}"))
        elif what == "forget the figures of":
            known.run.metrics.unlink(missing_ok=True)
            known.fixed.pop(known.run.metrics.name, None)

    # Commands

    def fit(self, name: str, kill: int | None, ignore_new: bool, relative: bool) -> None:
        known = self.known[name]
        run, images = known.run, self.pictures()
        root = os.path.relpath(self.images) if relative else str(self.images)
        args = ["fit", *RUNS[name], *SMALL, *QUIET, "--data.root", root, "--run_dir", str(run.path)]
        args += ["--data.ignore_new", "true"] if ignore_new and known.began is not None else []
        head = self.known["head"].run.best_checkpoint
        if name == "tuned":
            if known.began is None and not self.known["head"].run.metrics.exists():
                return
            args += ["--model.init_head_from", str(head)]
        finished = run.metrics.exists()
        code, said = self.command(args, run, kill)
        if known.began is None and run.config.exists():
            known.began, known.head = images, self.heads
            known.contents = {sha256: file.read_bytes() for file, (sha256, _) in self.files().items()}
            if name == "tuned":
                known.trained |= self.known["head"].trained
        if name == "head" and not finished and run.metrics.exists():
            self.heads += 1
        if known.began is not None:
            same_head = name != "tuned" or known.head == self.heads or not head.exists()
            if self.differs(known, images, ignore_new):
                assert code == 2, said
                assert "was made from other images" in said or "another head" in said, said
            elif same_head and not (name == "tuned" and not head.exists() and not run.last_checkpoint.exists()):
                assert code in (0, -signal.SIGKILL), said
        self.look_at(known, said)

    def test_a_checkpoint(self, name: str, split_seed: int) -> None:
        """Test a run's checkpoint on a split of the images as they are now."""
        known = self.known[name]
        if not known.run.metrics.exists():
            return
        folder = self.folder / "evaluation"
        shutil.rmtree(folder, ignore_errors=True)
        args = ["test", "--images", "split", *SMALL[2:6], *QUIET, "--data.root", str(self.images)]
        args += ["--data.split_seed", str(split_seed), "--run_dir", str(folder)]
        code, said = self.command([*args, "--ckpt_path", str(known.run.best_checkpoint)], known.run)
        names = known.run.read_predictions().class_names
        assert code == (0 if {*names} & {item.name for item in self.classes()} else 2), said
        if code:
            return
        tested = self.seen["test"]
        if leaked := tested & known.trained:
            assert f"warning: {len(leaked)} of the " in said, said
            assert "TRAINED on" in said, said
        else:
            assert "TRAINED" not in said, said

    def report_all_runs(self) -> None:
        if not any(known.run.metrics.exists() for known in self.known.values()):
            return
        code, said = self.command(["report", str(self.folder / "runs")], RunFolder(self.folder / "runs"))
        known = [item for item in self.known.values() if item.run.metrics.exists()]
        if len({tuple(item.run.read_predictions().class_names) for item in known}) > 1:
            assert code == 2, said
            return
        assert code == 0, said
        page = (self.folder / "runs/report.html").read_text()
        tests = {frozenset(self.tested(item.run, labels=True)) for item in known}
        assert ("NOT tested on the same images" in page) == (len(tests) > 1)
        for item in known:
            if self.tested(item.run) & item.trained:
                assert "TRAINED on" in page

    def compare(self, kill: int | None, ignore_new: bool, retrain: bool) -> None:
        folder = self.folder / "comparison"
        runs = [RunFolder(folder / f"fold-{fold}/little") for fold in range(2)]
        begun = [run for run in runs if run.config.exists()]
        recipe = self.folder / "little.yaml"
        recipe.write_text(json.dumps(LITTLE), encoding="utf-8")
        args = ["compare", "--models", str(recipe), "--folds", "2", *SMALL]
        args += ["--data.root", str(self.images), "--run_dir", str(folder)]
        args += ["--data.ignore_new", "true"] if ignore_new and begun else []
        args += ["--retrain", "true"] if retrain else []
        images = self.pictures()
        changed = [run for run in begun if self.differs(self.parts[run.path], images, ignore_new)]
        kept = len(list(folder.glob("replaced/*/*/little")))
        code, said = self.command(args, runs[-1] if begun else runs[0], kill)
        if changed and retrain:
            assert len(list(folder.glob("replaced/*/*/little"))) == kept + len(changed)
            for run in changed:
                del self.parts[run.path]
        elif changed:
            assert code == 2, said
            assert "was made from other images" in said, said
        for run in runs:
            if run.config.exists() and run.path not in self.parts:
                earlier = [item.began for item in self.parts.values()]
                self.parts[run.path] = Known(run, began=earlier[0] if ignore_new and earlier else images)
            if run.path in self.parts:
                self.look_at(self.parts[run.path], said)
        if code == 0:
            tested = [self.tested(run) for run in runs]
            assert not tested[0] & tested[1]
            (entry,) = json.loads((folder / "table.json").read_text())
            assert entry["n"] == sum(len(run.read_predictions().paths) for run in runs)
            assert "CAUTION" not in (folder / "table.md").read_text()
            assert len({run.read_metrics()["hashes"]["data"] for run in runs}) == 1

    @staticmethod
    def differs(known: Known, images: Pictures, ignore_new: bool) -> bool:
        assert known.began is not None
        return bool(known.began - images or (images - known.began and not ignore_new))

    # What must be true

    @invariant()
    def counted(self) -> None:
        RunMachine.steps += 1

    def look_at(self, known: Known, said: str) -> None:
        """Hold a run against what it promises."""
        run = known.run
        known.trained |= self.seen["train", str(run.path)]
        for name, content in known.fixed.items():
            assert (run.path / name).read_bytes() == content, f"{name} has changed"
        if run.config.exists():
            known.fixed |= {file.name: file.read_bytes() for file in (run.config, run.splits, run.start)}
            assert known.began == Counter((row["sha256"], row["label"]) for row in self.rows(run))
        epochs = [row["epoch"] for row in run.read_history()]
        assert epochs == list(range(len(epochs)))
        if not run.metrics.exists():
            return
        known.fixed |= {file.name: file.read_bytes() for file in (run.metrics, run.predictions, run.history)}
        metrics, rows = run.read_metrics(), {row["path"]: row for row in self.rows(run)}
        found = run.read_predictions()
        assert {row["path"] for row in rows.values() if row["part"] == "test"} == set(found.paths)
        assert [rows[path]["label"] for path in found.paths] == [found.class_names[label] for label in found.labels]
        leaked = self.tested(run) & known.trained
        counted = (metrics["leakage"] or {}).get("trained", 0)
        assert counted == sum(rows[path]["sha256"] in leaked for path in found.paths)
        assert ("TRAINED on" in run.report.read_text()) == bool(leaked)

    # How it is found out

    def files(self) -> dict[Path, tuple[str, str]]:
        return {
            file: (hashlib.sha256(file.read_bytes()).hexdigest(), folder.name)
            for folder in self.classes()
            for file in folder.iterdir()
        }

    def pictures(self) -> Pictures:
        return Counter(self.files().values())

    @staticmethod
    def rows(run: RunFolder) -> list[dict[str, str]]:
        with run.splits.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def tested(self, run: RunFolder, labels: bool = False) -> set[str]:
        contents = {row["path"]: row["sha256"] + row["label"] * labels for row in self.rows(run)}
        return {contents[path] for path in run.read_predictions().paths}

    def command(self, args: list[str], run: RunFolder, kill: int | None = None) -> tuple[int, str]:
        """Carry a command out in a process of its own; kill it when the run has so many epochs.

        Returns:
            Its exit status, and what it printed on standard error.
        """
        output, witness = self.folder / "said.txt", self.folder / "witness.jsonl"
        sys.stdout.flush()
        target = None if kill is None else len(run.read_history()) + kill
        process = os.fork()
        if process == 0:
            _carry_out(args, output, witness)
        while True:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                break
            if target is not None and run.last_checkpoint.exists() and _epochs(run) >= target:
                os.kill(process, signal.SIGKILL)
            time.sleep(0.002)
        said = output.read_text(encoding="utf-8", errors="replace")
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, 2, -signal.SIGKILL), said
        assert "Traceback" not in said, said
        RunMachine.outcomes[f"{args[0]} {code}"] += 1
        self.seen = self.read_witness(witness)
        return code, said

    def read_witness(self, file: Path) -> Any:
        """Return the contents that the last command trained on in each run folder, and those that it tested on."""
        seen: dict[Any, set[str]] = {"test": set()}
        lines = file.read_text().splitlines() if file.exists() else []
        for line in lines[self.witnessed :]:
            entry = json.loads(line)
            key = "test" if entry["kind"] == "test" else ("train", entry["run"])
            seen.setdefault(key, set()).update(entry["images"])
        self.witnessed = len(lines)
        return _Seen(seen)


class _Seen(dict):  # type: ignore[type-arg]
    def __missing__(self, key: object) -> set[str]:
        return set()


def _epochs(run: RunFolder) -> int:
    """Count the epochs that a run has told, which may be put aside at any moment."""
    try:
        return len(run.read_history())
    except InputError:
        return 0


def _carry_out(args: list[str], output: Path, witness: Path) -> None:
    """Carry a command out in a forked process, which ends with it."""
    status = 70
    try:
        sys.stdout = sys.stderr = output.open("w", encoding="utf-8", buffering=1)
        _watch(os.open(witness, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        _draw_nothing()
        from kth_lightning.cli.main import main

        try:
            main(args)
            status = 0
        except SystemExit as stopped:
            status = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _watch(stream: int) -> None:
    """Have every step write down what it is given."""
    from kth_lightning.data.batch import PADDING
    from kth_lightning.models import Classifier

    def watched(kind: str, step: Any) -> Any:
        def write(self: Any, batch: Any, batch_idx: int) -> Any:
            data = self.trainer.datamodule
            index = batch["index"][batch["label"] != PADDING].tolist()
            entry = {"kind": kind, "run": self.trainer.default_root_dir}
            contents = [data.catalogue.images[place].sha256 for place in index]
            os.write(stream, (json.dumps(entry | {"images": contents}) + "\n").encode())
            return step(self, batch, batch_idx)

        return write

    Classifier.training_step = watched("train", Classifier.training_step)  # type: ignore[method-assign]
    Classifier.test_step = watched("test", Classifier.test_step)  # type: ignore[method-assign]


def _draw_nothing() -> None:
    """Leave out pictures, which are most of the work of a small run and no part of what is looked at here."""
    from matplotlib.figure import Figure

    from kth_lightning.callbacks import run_report, test_results

    def nothing(*args: object, **settings: object) -> None:
        return None

    Figure.savefig = nothing  # type: ignore[method-assign, assignment]
    run_report.draw_mistakes = test_results.measure_maps = nothing  # type: ignore[assignment]
