import shutil
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from kth_lightning.callbacks.divergence import DivergenceMonitor
from kth_lightning.cli.main import main
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import BenchmarkCNN

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SMALL = ["fit", "--config", str(ROOT / "configs/sample/benchmark.yaml"), "--trainer.accelerator", "cpu"]
SMALL += ["--trainer.precision", "32", "--data.image_size", "64", "--data.batch_size", "8"]
ALONE = ["--trainer.devices", "1"]


class Poisoned(BenchmarkCNN):
    """Answer one image, in training's second epoch, with what is no number."""

    poison: Tensor

    def tail(self, features: Tensor) -> Tensor:
        hit = (features == self.poison).all(3).all(2).all(1) & (self.training and self.current_epoch == 1)
        return super().tail(features).masked_fill(hit[:, None], float("nan"))


@pytest.mark.parametrize("position", [0, 39], ids=["first", "last"])
def test_a_loss_that_is_no_number_stops_training_and_names_the_image(
    position: int, images: Path, tmp_path: Path
) -> None:
    data = ImageData(root=str(images), image_size=64, batch_size=1, val_size=9, test_size=9)
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(1)
    order = [int(batch["index"]) for batch in loader]
    model = Poisoned(3, image_size=64, optimizer=lambda params: torch.optim.SGD(params, 0.0))
    index = torch.tensor([order[position]])
    model.poison = model.features(data.images(index, torch.zeros_like(index), model.device))
    run = RunFolder(tmp_path)
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=2, logger=False, num_sanity_val_steps=0,
        use_distributed_sampler=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[DivergenceMonitor(run), ModelCheckpoint(run.checkpoints, save_last=True)],
    )  # fmt: skip
    with pytest.raises(InputError, match=f"step {position} of epoch 1 is not") as refused:
        trainer.fit(model, datamodule=data)
    path = data.catalogue.images[order[position]].path
    assert f"first on {path!r}:" in str(refused.value)
    assert str(run.last_checkpoint) in str(refused.value)
    kept = torch.load(run.last_checkpoint, weights_only=True)
    assert kept["epoch"] == 0
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


@pytest.mark.parametrize("devices", ["1", "2"])
def test_training_that_breaks_gets_one_sentence_from_all_processes(devices: str, images: Path, tmp_path: Path) -> None:
    args = [*SMALL, "--data.root", str(images), "--run_dir", str(tmp_path / "run"), "--model.optimizer", "SGD"]
    args += ["--model.optimizer.lr", "1e38", "--trainer.devices", devices]
    command = [sys.executable, "-m", "kth_lightning", *args, "--trainer.strategy", "ddp"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    (error,) = [line for line in result.stderr.splitlines() if "error:" in line]
    assert "is not a finite number" in error
    assert "--model.optimizer.lr" in error


def test_a_diverging_learning_rate_is_named(images: Path, tmp_path: Path) -> None:
    flags = ["--data.root", str(images), "--run_dir", str(tmp_path), "--trainer.max_epochs", "4"]
    flags += ["--model.optimizer", "SGD"]
    flags += ["--model.optimizer.lr", "10", "--model.lr_scheduler", "LinearLR"]
    with pytest.warns(UserWarning, match=r"training diverges; give a lower --model\.optimizer\.lr, such as 1"):
        main([*SMALL, *ALONE, *flags])


def test_a_run_that_learnt_nothing_says_so(images: Path, tmp_path: Path) -> None:
    flags = ["--data.root", str(images), "--run_dir", str(tmp_path), "--trainer.max_epochs", "5"]
    flags += ["--model.batch_norm", "false", "--model.optimizer.lr", "1e-12", "--data.augmentation", "none"]
    with pytest.warns(UserWarning, match=r"nothing was learnt; give another --model\.optimizer\.lr than 1e-12"):
        main([*SMALL, *ALONE, *flags])


def test_validation_labels_that_are_wrong_are_noticed(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "animals"
    for number, part in enumerate(("train", "valid", "test")):
        for label in range(3):
            other = (label + 1) % 3 if part == "valid" else label
            for image in range(6 * number, 6 * number + 6):
                copy = folder / part / f"class{other}" / f"{label}-{image}.png"
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(images / f"class{label}" / f"{image:03d}.png", copy)
    flags = ["--data.root", str(folder), "--run_dir", str(tmp_path / "run"), "--trainer.max_epochs", "12"]
    flags += ["--model.mixup", "0", "--data.augmentation", "none", "--model.label_smoothing", "0"]
    with pytest.warns(UserWarning, match="is not clearly better than always naming the most frequent class"):
        main([*SMALL, *ALONE, *flags])
