"""A run is tied to its images and its split, not to where they lie or what computes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from PIL import Image
from run_parts import parts

from kth_lightning.callbacks import checkpoints
from kth_lightning.callbacks.checkpoints import LastCheckpoint
from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EPOCHS = 12
TINY = [
    "--model",
    "BenchmarkCNN",
    "--model.filters",
    "[2,4]",
    "--model.block_dropout",
    "[0,0]",
    "--model.optimizer.lr",
    "0.01",
]
TINY += ["--data.image_size", "32", "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--patience", "99"]

Refusal = Callable[..., str]
Change = Callable[[Path], object]


def fit(images: Path | str, run: Path, *flags: str, epochs: int = EPOCHS) -> list[str]:
    settings = [*TINY, "--trainer.max_epochs", str(epochs), "--data.root", str(images), *flags]
    return ["fit", *settings, "--run_dir", str(run)]


def killed_fit(args: list[str], run: RunFolder, epochs: int) -> None:
    """Carry out `fit` as a command of its own, and kill it after some epochs."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "kth_lightning", *args]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, env=environment)
    while not run.last_checkpoint.exists() or len(run.read_history()) < epochs:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not run.metrics.exists()


def history(run: RunFolder) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.read_history()]


def snapshot(run: RunFolder) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Path]) -> Path:
    return make_folder(tmp_path_factory.mktemp("data") / "images", size=32)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, data: Path) -> RunFolder:
    run = tmp_path_factory.mktemp("runs") / "straight"
    main(fit(data, run))
    return RunFolder(run)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, data: Path) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("runs") / "killed")
    killed_fit(fit(data, run.path), run, epochs=3)
    return run


@pytest.fixture
def images(data: Path, tmp_path: Path) -> Path:
    """Give a copy of the images, to be changed."""
    return Path(shutil.copytree(data, tmp_path / "images"))


@pytest.fixture(params=["killed", "straight"])
def begun(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    """Give a copy of a run that was killed, and of one that is finished."""
    return RunFolder(Path(shutil.copytree(request.getfixturevalue(request.param).path, tmp_path / "run")))


def grow(images: Path, count: int = 10) -> None:
    for position, folder in enumerate(sorted(images.iterdir())):
        for number in range(count):
            Image.effect_noise((32, 32), 20 + 10 * position + number).save(folder / f"more{number}.png")


def rename_files(images: Path) -> None:
    for folder in images.iterdir():
        for number, file in enumerate(sorted(folder.iterdir(), reverse=True)):
            file.rename(folder / f"renamed-{number}.png")


CHANGES: dict[str, tuple[Change, list[str]]] = {
    "images added": (grow, ["30 are new", "'class0/more0.png'", "--data.ignore_new true"]),
    "an image removed": (lambda images: (images / "class1/003.png").unlink(), ["1 is gone ('class1/003.png')"]),
    "an image relabelled": (
        lambda images: (images / "class1/003.png").rename(images / "class2/x.png"),
        ["1 is relabelled ('class1/003.png')"],
    ),
    "a class renamed": (
        lambda images: (images / "class1").rename(images / "klass"),
        ["12 are relabelled (class 'class1' is called 'klass' now)"],
    ),
    "a class added": (lambda images: shutil.copytree(images / "class1", images / "class3"), ["12 are new"]),
    "a class removed": (lambda images: shutil.rmtree(images / "class2"), ["12 are gone"]),
    "an image edited": (
        lambda images: Image.effect_noise((32, 32), 9).save(images / "class1/003.png"),
        ["1 is changed ('class1/003.png')"],
    ),
}


@pytest.mark.parametrize(("change", "named"), CHANGES.values(), ids=CHANGES)
def test_changed_images_stop_a_repeated_command_in_one_sentence_and_touch_nothing(
    change: Change, named: list[str], images: Path, begun: RunFolder, refusal: Refusal
) -> None:
    change(images)
    before = snapshot(begun)
    line = refusal(*fit(images, begun.path))
    finished = " is finished and" if begun.metrics.exists() else ""
    assert f"error: {begun.path}{finished} was made from other images: " in line
    for words in named:
        assert words in line
    assert "to start anew, give another --run_dir or delete this one" in line
    assert "to go on with the run's own images and split" in line
    assert snapshot(begun) == before


def test_an_interrupted_run_goes_on_bit_for_bit_from_images_that_moved_and_grew(
    images: Path, killed: RunFolder, straight: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(Path(shutil.copytree(killed.path, tmp_path / "moved" / "run")))
    before = {file: file.read_bytes() for file in (run.splits, run.config, run.start)}
    rename_files(images)
    grow(images)
    images.rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    flags = ["--data.ignore_new", "true", "--data.cache_dir", str(tmp_path / "cache"), "--data.source", "folder"]
    main(fit("elsewhere", run.path, *flags))
    assert history(run) == history(straight)
    assert run.predictions.read_text() == straight.predictions.read_text()
    ours, theirs = (torch.load(item.last_checkpoint, weights_only=True)["state_dict"] for item in (run, straight))
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert {file: file.read_bytes() for file in before} == before
    assert run.read_metrics()["hashes"] == straight.read_metrics()["hashes"]


def test_a_finished_run_is_known_by_its_images_wherever_they_lie(
    images: Path, straight: RunFolder, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(straight)
    rename_files(images)
    monkeypatch.chdir(images.parent)
    main(fit(images.name, straight.path))
    assert "is finished" in capsys.readouterr().err
    grow(images)
    main(fit(images, straight.path, "--data.ignore_new", "true"))
    assert "is finished" in capsys.readouterr().err
    assert snapshot(straight) == before


def test_a_run_of_a_version_that_lacked_a_flag_goes_on_where_the_flag_is_left_out(
    images: Path, begun: RunFolder, refusal: Refusal
) -> None:
    written = yaml.safe_load(begun.config.read_text())
    for flag in ("ignore_groups", "resize", "sample_sites"):
        del written["data"][flag]
    begun.config.write_text(yaml.safe_dump(written))
    assert "--data.resize: squash there, crop here" in refusal(*fit(images, begun.path, "--data.resize", "crop"))
    main(fit(images, begun.path))
    assert len(begun.read_history()) == EPOCHS


def test_the_best_epoch_so_far_is_kept_in_a_run_folder_that_moved(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run")
    args = [
        "--model.optimizer",
        "SGD",
        "--model.optimizer.lr",
        "2.0",
        "--trainer.precision",
        "32-true",
    ]  # soon it gets worse
    with monkeypatch.context() as interrupted:
        save = LastCheckpoint.on_train_epoch_end

        def save_and_stop(self: LastCheckpoint, trainer: L.Trainer, model: L.LightningModule) -> None:
            save(self, trainer, model)
            if trainer.current_epoch == 5:
                raise KeyboardInterrupt

        interrupted.setattr(checkpoints, "SAVE_EVERY", 0.0)
        interrupted.setattr(LastCheckpoint, "on_train_epoch_end", save_and_stop)
        with pytest.raises(SystemExit, match="130"):
            main(fit(data, run.path, *args))
    best = min(run.read_history(), key=lambda row: row["val/loss"])["epoch"]
    assert best < 5
    run = RunFolder(Path(shutil.move(run.path, tmp_path / "moved")))
    main(fit(data, run.path, *args))
    best = min(run.read_history(), key=lambda row: row["val/loss"])["epoch"]
    assert run.read_metrics()["best_epoch"] == torch.load(run.best_checkpoint, weights_only=True)["epoch"] == best


def test_images_that_were_put_into_another_part_are_refused(data: Path, tmp_path: Path, refusal: Refusal) -> None:
    root, run = tmp_path / "images", RunFolder(tmp_path / "run")
    for folder in sorted(data.iterdir()):
        for number, file in enumerate(sorted(folder.iterdir())):
            target = root / ("test" if number < 3 else "train") / folder.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    main(fit(root, run.path, epochs=1))
    shutil.move(root / "train/class0/011.png", root / "test/class0/011.png")
    line = refusal(*fit(root, run.path, epochs=1))
    assert "1 is put into another part of the split ('train/class0/011.png')" in line


def test_the_precision_that_the_hardware_chose_is_the_runs(
    data: Path, killed: RunFolder, tmp_path: Path, refusal: Refusal
) -> None:
    run = RunFolder(Path(shutil.copytree(killed.path, tmp_path / "run")))
    config = yaml.safe_load(run.config.read_text())
    chosen = config["trainer"]["precision"]
    other = "32-true" if chosen == "bf16-mixed" else "bf16-mixed"
    config["trainer"]["precision"] = other  # as if it had begun on another machine
    run.config.write_text(yaml.safe_dump(config))
    assert "--trainer.precision" in refusal(*fit(data, run.path, "--trainer.precision", chosen))
    main(fit(data, run.path))
    assert run.read_metrics()["precision"] == other
    assert yaml.safe_load(run.config.read_text()) == config
    given = RunFolder(tmp_path / "given")
    main(fit(data, given.path, "--trainer.precision", other, epochs=1))
    assert "another --trainer.precision" in refusal(*fit(data, given.path, epochs=1))


def test_other_devices_are_said_and_the_run_goes_on(
    data: Path, killed: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = Path(shutil.copytree(killed.path, tmp_path / "run"))
    start = run / "start.json"
    start.write_text(start.read_text().replace("x86_64 cpu", "4 x NVIDIA H200"))
    main(fit(data, run, "--trainer.accelerator", "auto", "--trainer.devices", "auto"))
    assert "the run began on 4 x NVIDIA H200 and continues on " in capsys.readouterr().err
    assert RunFolder(run).finished


def test_another_length_is_refused_with_the_way_to_it(data: Path, begun: RunFolder, refusal: Refusal) -> None:
    before = snapshot(begun)
    line = refusal(*fit(data, begun.path, epochs=EPOCHS + 5))
    assert f"holds a run of --trainer.max_epochs {EPOCHS}, and {EPOCHS + 5} were asked for" in line
    assert "give another --run_dir" in line
    assert snapshot(begun) == before


def test_a_longer_run_begins_where_a_shorter_one_ended_and_is_the_same_as_from_the_start(
    images: Path, straight: RunFolder, killed: RunFolder, tmp_path: Path, refusal: Refusal
) -> None:
    longer = RunFolder(tmp_path / "longer")
    main(fit(images, longer.path, epochs=EPOCHS + 4))
    rename_files(images)
    for shorter in (straight, killed):
        before = snapshot(shorter)
        run = RunFolder(tmp_path / shorter.path.name)
        args = fit(images, run.path, "--continue_from", str(shorter.path), epochs=EPOCHS + 4)
        main(args)
        assert history(run) == history(longer)
        assert run.predictions.read_text() == longer.predictions.read_text()
        ours, theirs = (torch.load(item.best_checkpoint, weights_only=True)["state_dict"] for item in (run, longer))
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())
        assert yaml.safe_load(run.config.read_text())["trainer"]["max_epochs"] == EPOCHS + 4
        assert snapshot(shorter) == before
        main(args)
    seconds = [
        [row["seconds"] for row in run.read_history()][:2] for run in (straight, RunFolder(tmp_path / "straight"))
    ]
    assert seconds[0] == seconds[1]
    line = refusal(
        *fit(images, tmp_path / "other", "--continue_from", str(straight.path), "--model.optimizer.lr", "0.5")
    )
    assert f"--continue_from {straight.path} holds a run with another --model.init_args.optimizer.init_args.lr" in line
    main(fit(images, tmp_path / "cosine", "--model.lr_scheduler", "Cosine", epochs=1))
    args = fit(
        images, tmp_path / "other", "--model.lr_scheduler", "Cosine", "--continue_from", str(tmp_path / "cosine")
    )
    assert "its learning rate depends on its length" in refusal(*args)
    assert "there is no run" in refusal(*fit(images, tmp_path / "other", "--continue_from", str(tmp_path / "none")))
    grow(images)
    line = refusal(*fit(images, tmp_path / "other", "--continue_from", str(straight.path)))
    assert f"{straight.path} is finished and was made from other images: 30 are new" in line
    assert not (tmp_path / "other").exists()


def test_weights_are_known_by_their_content(data: Path, tmp_path: Path, refusal: Refusal) -> None:
    import timm

    def head(weights: Path) -> list[str]:
        flags = ["--model", "FeatureHead", "--model.backbone", "test_convnext", "--model.weights", str(weights)]
        flags += ["--data.image_size", "32", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1"]
        return ["fit", *flags, "--data.root", str(data), "--run_dir", str(tmp_path / "run")]

    torch.save(timm.create_model("test_convnext").state_dict(), tmp_path / "a.pth")
    main(head(tmp_path / "a.pth"))
    (tmp_path / "a.pth").rename(tmp_path / "b.pth")
    run = RunFolder(tmp_path / "run")
    run.metrics.unlink()
    main(head(tmp_path / "b.pth"))
    assert run.finished
    torch.save(timm.create_model("test_convnext").state_dict(), tmp_path / "a.pth")
    line = refusal(*head(tmp_path / "a.pth"))
    assert "holds a run on weights that --model.weights does not give" in line
    assert run.read_metrics()["hashes"]["weights"][:12] in line


def test_the_same_command_means_the_same_folder_however_it_is_typed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    project = tmp_path / "project"
    shutil.copytree(data, project / "images")
    monkeypatch.chdir(project)

    def runs(*flags: str) -> list[Path]:
        main(["fit", *TINY, "--trainer.max_epochs", "1", *flags])
        return sorted(Path("runs").iterdir())

    (first,) = runs("--data.root", "images")
    capsys.readouterr()
    config = yaml.safe_load((first / "config.yaml").read_text())
    other = "32-true" if config["trainer"]["precision"] == "bf16-mixed" else "bf16-mixed"
    config["trainer"]["precision"] = other  # as if it had begun on another machine
    (first / "config.yaml").write_text(yaml.safe_dump(config))
    for flags in (
        ["--data.root", str(project / "images")],
        ["--data.root", "./images/../images", "--trainer.devices", "auto"],
        ["--data.root", "images", "--data.cache_dir", str(tmp_path / "cache")],
    ):
        assert runs(*flags) == [first]
        assert "is finished" in capsys.readouterr().err
    (project / "images").rename(project / "pictures")
    assert runs("--data.root", "pictures") == [first]
    assert f"using {first}: the same settings, and the same images in another place" in capsys.readouterr().err
    project.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert runs("--data.root", "pictures") == [first]
    assert len(runs("--data.root", "pictures", "--data.split_seed", "5")) == 2


def test_a_split_is_given_back_by_content_and_new_images_are_left_out_where_told_to(
    images: Path, straight: RunFolder, tmp_path: Path, refusal: Refusal
) -> None:
    rename_files(images)
    grow(images)
    args = fit(images, tmp_path / "again", "--data.splits", str(straight.splits))
    line = refusal(*args)
    assert f"--data.splits {straight.splits}: made for other images: 30 are new" in line
    assert "leave the flag out for a new split, or give --data.ignore_new true" in line
    assert not (tmp_path / "again").exists()
    main([*args, "--data.ignore_new", "true"])
    again = RunFolder(tmp_path / "again")
    assert parts(again) == parts(straight)
    assert history(again) == history(straight)
    assert again.read_metrics()["hashes"] == straight.read_metrics()["hashes"]
    line = refusal(*fit(images, tmp_path / "third", "--data.ignore_new", "true"))
    assert "--data.ignore_new goes with --data.splits" in line
    swapped = straight.splits.read_text().replace(",val\n", ",x\n").replace(",test\n", ",val\n")
    (tmp_path / "other.csv").write_text(swapped.replace(",x\n", ",test\n"))
    line = refusal(*fit(images, again.path, "--data.splits", str(tmp_path / "other.csv"), "--data.ignore_new", "true"))
    assert f"holds a run with another split than --data.splits {tmp_path}/other.csv" in line


DAMAGES: dict[str, tuple[Callable[[RunFolder], object], str]] = {
    "splits.csv gone": (lambda run: run.splits.unlink(), "splits.csv is missing; put it back"),
    "splits.csv cut": (lambda run: run.splits.write_text(run.splits.read_text()[:300]), "splits.csv"),
    "splits.csv of bytes": (lambda run: run.splits.write_bytes(bytes(range(256))), "splits.csv is damaged"),
    "config.yaml gone": (lambda run: run.config.unlink(), "config.yaml is missing beside"),
    "start.json of bytes": (lambda run: run.start.write_bytes(bytes(range(256))), "start.json is damaged"),
    "a test image made a training image": (
        lambda run: run.splits.write_text(run.splits.read_text().replace(",test\n", ",train\n", 1)),
        "was not made from the images and the split that",
    ),
    "a later version's": (lambda run: run.start.write_text('{"format": 2}'), "was written by a newer kth_lightning"),
}


@pytest.mark.parametrize(("damage", "named"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_beginning_is_refused_and_nothing_is_trained(
    damage: Callable[[RunFolder], object], named: str, data: Path, killed: RunFolder, tmp_path: Path, refusal: Refusal
) -> None:
    run = RunFolder(Path(shutil.copytree(killed.path, tmp_path / "run")))
    damage(run)
    before = snapshot(run)
    assert named in refusal(*fit(data, run.path))
    assert snapshot(run) == before


def test_a_newer_run_folder_is_refused_everywhere(
    data: Path, straight: RunFolder, tmp_path: Path, refusal: Refusal
) -> None:
    run = RunFolder(Path(shutil.copytree(straight.path, tmp_path / "run")))
    assert run.read_metrics()["format"] == run.read_start()["format"] == 1
    run.metrics.write_text(json.dumps(run.read_metrics() | {"format": 2}))
    before = snapshot(run)
    for args in (fit(data, run.path), ["report", str(run.path)]):
        line = refusal(*args)
        assert f"{run.metrics} was written by a newer kth_lightning (its format is 2, and this one knows 1)" in line
    assert snapshot(run) == before
