from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kth_lightning.cli import main
from kth_lightning.results.run_folder import RunFolder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> RunFolder:
    """Train a small CNN in float32 that looks at mirror images too, for a second."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    flags = ["--model.filters", "[8,16]", "--model.block_dropout", "[0,0]", "--model.lr", "0.01"]
    flags += ["--data.root", str(pictures), "--data.image_size", "32", "--data.interpolation", "bicubic"]
    flags += ["--data.mirror", "true", "--trainer.max_epochs", "3", "--trainer.accelerator", "cpu"]
    flags += ["--trainer.precision", "32"]
    main(["fit", "--model", "BenchmarkCNN", "--run_dir", str(run), *flags])
    return RunFolder(run)


@pytest.fixture(scope="session")
def change_checkpoint() -> Callable[..., Path]:
    """Write a checkpoint's copy with another temperature, or with each tensor multiplied."""

    def change(checkpoint: Path, copy: Path, temperature: float = 1.0, factor: float = 1.0) -> Path:
        content = torch.load(checkpoint, weights_only=True)
        content["hyper_parameters"]["temperature"] = temperature
        for name, tensor in content["state_dict"].items():
            if tensor.is_floating_point() and not name.startswith("preprocess"):
                content["state_dict"][name] = tensor * factor
        torch.save(content, copy)
        return copy

    return change
