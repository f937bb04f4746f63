"""A comparison is of one split: what its folder began with."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.run_lock import LOCK

pytestmark = pytest.mark.slow

SMALL = ["--data.image_size", "48", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
SMALL += ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32", "--data.views", "1"]
HOLD = "import sys, time; from pathlib import Path; from kth_lightning.io.run_lock import locked"
HOLD += "\nwith locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"

Refusal = Callable[..., str]


def compare(images: Path, folder: Path, *flags: str) -> list[str]:
    return ["compare", "--data.root", str(images), "--run_dir", str(folder), *SMALL, *flags]


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.name != LOCK}


def split_of(run: RunFolder) -> dict[str, tuple[str, str]]:
    with run.splits.open(newline="") as stream:
        return {row["sha256"]: (row["label"], row["part"]) for row in csv.DictReader(stream)}


def grow(images: Path) -> None:
    for position, folder in enumerate(sorted(images.iterdir())):
        for number in range(10):
            Image.effect_noise((48, 48), 20 + 10 * position + number).save(folder / f"0more{number}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Path]) -> Path:
    return make_folder(tmp_path_factory.mktemp("data") / "images", size=48)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "comparison"
    main(compare(data, folder, "--models", "head"))
    return folder


@pytest.fixture
def images(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data, tmp_path / "images"))


@pytest.fixture
def folder(compared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(compared, tmp_path / "comparison"))


def test_models_that_are_added_when_the_images_have_grown_are_refused_and_nothing_is_written(
    images: Path, folder: Path, refusal: Refusal
) -> None:
    grow(images)
    before = snapshot(folder)
    line = refusal(*compare(images, folder, "--models", "head", "finetune"))
    assert f"error: {folder}/head is finished and was made from other images: 30 are new" in line
    assert "to go on with those, give --data.ignore_new true" in line
    assert "give another --run_dir, or --retrain true" in line
    assert refusal(*compare(images, folder, "--models", "finetune")) == line
    assert snapshot(folder) == before


def test_models_that_are_added_get_the_split_that_the_comparison_began_with(
    images: Path, folder: Path, compared: Path, capsys: pytest.CaptureFixture
) -> None:
    grow(images)
    for number, file in enumerate(sorted((images / "class1").iterdir(), reverse=True)):
        file.rename(file.with_name(f"renamed-{number}.png"))
    main(compare(images, folder, "--models", "head", "finetune", "--data.ignore_new", "true"))
    head, tuned = RunFolder(folder / "head"), RunFolder(folder / "finetune")
    assert split_of(tuned) == split_of(head) == split_of(RunFolder(compared / "head"))
    assert tuned.read_metrics()["hashes"] == head.read_metrics()["hashes"]
    assert tuned.read_metrics()["leakage"]["trained"] == tuned.read_metrics()["leakage"]["chosen"] == 0
    printed = capsys.readouterr()
    assert "CAUTION" not in printed.out + (folder / "report.html").read_text()
    assert "warning" not in printed.err
    assert [entry["n"] for entry in json.loads((folder / "table.json").read_text())] == [5, 5]
    assert "McNemar" in (folder / "report.html").read_text()


def test_parts_of_other_images_are_trained_again_where_told_to_and_kept_beside(
    images: Path, folder: Path, compared: Path
) -> None:
    before = {file.relative_to(compared): content for file, content in snapshot(compared / "head").items()}
    grow(images)
    main(compare(images, folder, "--models", "head", "--retrain", "true"))
    assert len(split_of(RunFolder(folder / "head"))) == 66
    kept = folder / "replaced/1"
    assert {file.relative_to(kept): content for file, content in snapshot(kept).items()} == before
    (entry,) = json.loads((folder / "table.json").read_text())
    assert entry["n"] == 10


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--data.split_seed", "5"], "head holds a run on another split than this command asks for"),
        (["--data.test_size", "9"], "head holds a run on another split than this command asks for"),
        (["--folds", "3"], "holds a comparison over other folds or seeds (head)"),
        (["--seeds", "2"], "holds a comparison over other folds or seeds (head)"),
    ],
    ids=str,
)
def test_another_split_is_refused_in_a_folder_that_has_one(
    flags: list[str], named: str, data: Path, folder: Path, refusal: Refusal
) -> None:
    before = snapshot(folder)
    assert named in refusal(*compare(data, folder, "--models", "finetune", *flags))
    assert snapshot(folder) == before


def test_every_fold_keeps_to_the_images_that_the_first_began_with(
    images: Path, tmp_path: Path, refusal: Refusal
) -> None:
    folder = tmp_path / "folds"
    args = compare(images, folder, "--models", "head", "--folds", "2")
    main(args)
    shutil.rmtree(folder / "fold-1")  # as if it had been stopped behind the first
    for number, file in enumerate(sorted((images / "class1").iterdir(), reverse=True)):
        file.rename(file.with_name(f"renamed-{number}.png"))
    main(args)
    tested = [
        {sha256 for sha256, (_, part) in split_of(RunFolder(folder / f"fold-{fold}/head")).items() if part == "test"}
        for fold in range(2)
    ]
    assert [len(item) for item in tested] == [18, 18]
    assert len(set.union(*tested)) == 36
    (entry,) = json.loads((folder / "table.json").read_text())
    assert (entry["n"], entry["runs"]) == (36, 2)
    (images / "class0/000.png").unlink()
    assert "1 is gone ('class0/000.png')" in refusal(*args)


def test_figures_of_different_test_images_are_never_shown_without_a_word(
    images: Path, folder: Path, tmp_path: Path
) -> None:
    grow(images)
    main(compare(images, tmp_path / "grown", "--models", "benchmark"))
    shutil.copytree(tmp_path / "grown/benchmark", folder / "benchmark")
    main(["report", str(folder)])
    page = (folder / "report.html").read_text()
    caution = "CAUTION: these models were NOT tested on the same images (benchmark 10, head 5)"
    assert caution in page
    assert "These figures are for different test images and cannot be compared" in page
    assert "does best" not in page
    assert "McNemar" not in page
    assert "Accuracy against training time" not in page


def test_the_same_command_means_the_same_folder_wherever_the_images_lie(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)

    def folders(root: Path | str, *flags: str) -> list[Path]:
        main(["compare", "--data.root", str(root), "--models", "head", *SMALL, *flags])
        return sorted(Path("runs").iterdir())

    (first,) = folders("images")
    capsys.readouterr()
    assert folders(images, "--data.cache_dir", str(tmp_path / "cache")) == [first]
    images.rename(tmp_path / "pictures")
    assert folders("pictures") == [first]
    said = capsys.readouterr().err
    assert said.count("is finished") == 2
    assert f"using {first}: the same settings, and the same images in another place" in said


@pytest.fixture
def holder(folder: Path) -> Iterator[Callable[[Path], subprocess.Popen]]:
    """Have another process at work in a folder."""
    started = []

    def hold(path: Path) -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.wait()


def test_two_commands_do_not_work_in_one_folder_and_a_dead_ones_lock_is_taken_over(
    data: Path, folder: Path, holder: Callable[[Path], subprocess.Popen], refusal: Refusal, tmp_path: Path
) -> None:
    args = compare(data, folder, "--models", "head")
    RunFolder(folder / "head").metrics.unlink()
    before = snapshot(folder)
    for path in (folder, folder / "head"):
        process = holder(path)
        line = refusal(*args)
        assert f"another command is at work in {path}; wait until it has ended, or stop it" in line
        assert snapshot(folder) == before
        process.kill()
        process.wait()
    main(args)
    assert RunFolder(folder / "head").finished
    holder(folder / "head")
    main(args)  # which only looks at a finished run


def test_two_fits_started_together_train_one_run(data: Path, tmp_path: Path) -> None:
    flags = ["--model", "BenchmarkCNN", "--model.filters", "[2,4]", "--model.block_dropout", "[0,0]", *SMALL[:-2]]
    args = ["fit", *flags, "--data.root", str(data), "--run_dir", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "kth_lightning", *args]
    both = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert sorted(process.returncode for process in both) in ([0, 2], [0, 0])
    for process, text in zip(both, said, strict=True):
        refused = "another command is at work in" in text
        assert refused == (process.returncode == 2)
        assert refused or "run folder" in text or "is finished" in text
    assert [row["epoch"] for row in RunFolder(tmp_path / "run").read_history()] == [0]


def test_the_other_processes_of_a_run_share_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kth_lightning.io.run_lock import locked

    with locked(tmp_path / "run"):
        for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID"):
            with monkeypatch.context() as other:
                other.setenv(name, "1")
                with locked(tmp_path / "run"):
                    pass
        (tmp_path / "run/config.yaml").touch()
    assert (tmp_path / "run").exists()
    with locked(tmp_path / "a/b/run"):
        pass
    assert not (tmp_path / "a").exists()
    started = time.monotonic()
    with locked(tmp_path / "run"), pytest.raises(Exception, match="another command"), locked(tmp_path / "run"):
        pass
    assert time.monotonic() - started < 1
