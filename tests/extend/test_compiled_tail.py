"""Training through torch.compile, by the real command."""

import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import kth_lightning
from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import BenchmarkCNN, Classifier, FineTuned

COMPILED = ["--trainer.callbacks", "kth_lightning.CompiledTail"]

TELLING = """
import torch
from kth_lightning import Classifier


class Telling(Classifier):
    def __init__(self, num_classes, **kwargs):
        super().__init__(num_classes, **kwargs)
        self.dense = torch.nn.Linear(3, num_classes)

    def tail(self, features):
        logits = self.dense(features.mean((2, 3)) * 50)
        return logits * 0 if torch.compiler.is_compiling() else logits

"""

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")


def command(images: Path, run: Path, *flags: str) -> list[str]:
    args = ["fit", "--data.root", str(images), "--data.image_size", "32", "--data.batch_size", "8"]
    args += ["--data.val_size", "6", "--data.test_size", "6", "--trainer.max_epochs", "2", "--run_dir", str(run)]
    args += ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32"]
    return [*args, *flags]


@pytest.mark.slow
@needs_compiler
def test_figures_are_those_without_it_to_rounding(images: Path, tmp_path: Path) -> None:
    small = ["--model", "BenchmarkCNN", "--model.filters", "[4,8]", "--model.block_dropout", "[0,0]", "--model.mixup"]
    # Not RMSprop: it would blow the rounding up that is all of the gradient of a bias before a normalisation.
    small += [".2", "--model.dropout", "0", "--model.batch_norm", "true", "--ema_decay", ".9"]
    small += ["--model.optimizer", "SGD", "--model.optimizer.lr", ".1"]
    main(command(images, tmp_path / "plain", *small))
    main(command(images, tmp_path / "compiled", *small, *COMPILED))
    plain, compiled = (RunFolder(tmp_path / name).read_history() for name in ("plain", "compiled"))
    for figure in ("train/loss", "val/loss"):
        assert [row[figure] for row in compiled] == pytest.approx([row[figure] for row in plain], rel=1e-5)


@pytest.mark.slow
@needs_compiler
def test_mixed_precision_casts_no_more_than_without_it(images: Path, tmp_path: Path) -> None:
    """A head computes in float32, and so do its gradients, beside a trunk in bf16."""
    head = [
        "--model",
        "FeatureHead",
        "--model.backbone",
        "resnet10t",
        "--model.weights",
        "none",
        "--model.dropout",
        "0",
    ]
    head += ["--trainer.precision", "bf16-mixed", "--model.optimizer", "SGD", "--model.optimizer.lr", "1"]
    main(command(images, tmp_path / "plain", *head))
    main(command(images, tmp_path / "compiled", *head, *COMPILED))
    plain, compiled = (RunFolder(tmp_path / name).read_history() for name in ("plain", "compiled"))
    assert [row["train/loss"] for row in compiled] == pytest.approx([row["train/loss"] for row in plain], rel=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        BenchmarkCNN(3, filters=(4, 8), block_dropout=(0.0, 0.2), batch_norm=True, image_size=32),
        FineTuned(3, backbone="resnet10t", weights="none", image_size=32),
        FineTuned(3, backbone="mobilenetv3_small_050", weights="none", image_size=32),
    ],
    ids=["cnn", "resnet", "mobilenet"],
)
def test_a_tail_is_compiled_as_one(model: Classifier) -> None:
    model.train()
    model.on_fit_start()
    with torch.no_grad():
        features = model.features(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    compiled = torch.compile(model.tail, fullgraph=True, dynamic=False, backend="eager")
    assert compiled(features).shape == (2, 3)


@needs_compiler
def test_training_alone_is_compiled(images: Path, tmp_path: Path, mine: Callable) -> None:
    mine(TELLING)
    main(command(images, tmp_path / "run", "--model", "mine.Telling", *COMPILED))
    for row in RunFolder(tmp_path / "run").read_history():
        assert row["train/loss"] == pytest.approx(math.log(3), abs=1e-5)
        assert row["val/loss"] > math.log(3) + 0.1


def test_an_unknown_mode_is_one_sentence(
    images: Path, tmp_path: Path, mine: Callable, capsys: pytest.CaptureFixture
) -> None:
    mine(TELLING)
    unknown = ["--trainer.callbacks.mode", "fastest"]
    with pytest.raises(SystemExit, match="2"):
        main(command(images, tmp_path / "run", "--model", "mine.Telling", *COMPILED, *unknown))
    assert "error: CompiledTail: mode 'fastest'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_one_sentence(
    images: Path, tmp_path: Path, mine: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine(TELLING)
    monkeypatch.setenv("CXX", "/no/such/compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("PYTHONPATH", str(Path(kth_lightning.__file__).parents[1]))
    args = command(images, tmp_path / "run", "--model", "mine.Telling", *COMPILED)
    there = subprocess.run(
        [sys.executable, "-m", "kth_lightning", *args], cwd=tmp_path / "somebody", capture_output=True, text=True
    )
    assert there.returncode == 2
    assert "error: CompiledTail: torch cannot compile the tail of Telling here" in there.stderr
    assert "Traceback" not in there.stderr
