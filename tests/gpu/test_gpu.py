"""What only a machine with a GPU can show, beside the tests of augmentations that are marked alike."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from no_waiting import NoWaiting

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ROOT = Path(__file__).parents[2]
SMALL = ["--data.image_size", "64", "--data.batch_size", "8", "--trainer.devices", "1", "--trainer.max_epochs", "3"]
BACKBONE = ["--model.backbone", "resnet10t", "--model.weights", "none"]
AFRESH, STORED = ["--data.views", "null"], ["--data.views", "2"]
MODELS = {
    "benchmark": ["--config", str(ROOT / "configs/benchmark.yaml"), "--model.filters", "[8,16,16,16,16]"],
    "head": ["--config", str(ROOT / "configs/head.yaml"), *BACKBONE, *STORED],
    "block 5, afresh": ["--config", str(ROOT / "configs/finetune.yaml"), *BACKBONE, *AFRESH],
    "block 5, stored": ["--config", str(ROOT / "configs/finetune.yaml"), *BACKBONE, *STORED],
}
# What a device draws by itself is another device's: dropout's masks and mixup's partners. Plain gradient descent,
# because AdamW's first steps are of one length whatever the gradient, so that rounding would turn some of them round.
NOTHING_DRAWN = [
    "--model.mixup",
    "0",
    "--model.dropout",
    "0",
    "--model.optimizer",
    "SGD",
    "--model.optimizer.lr",
    "0.01",
]
GRAPHS = ["--trainer.callbacks", "kth_lightning.CompiledTail", "--trainer.callbacks.mode", "reduce-overhead"]
NO_BLOCK_DROPOUT = ["--model.block_dropout", "[0,0,0,0,0]"]


@pytest.fixture(autouse=True)
def _waiting_is_allowed_again() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("model", MODELS)
def test_a_gpu_trains_to_the_figures_of_the_cpu(
    model: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both compute in float32, but sum in another order, which training makes larger from step to step."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    flags = [*MODELS[model], *NOTHING_DRAWN, *(NO_BLOCK_DROPOUT if model == "benchmark" else [])]
    flags += ["--data.root", str(images), "--trainer.precision", "32-true", *SMALL]
    found = []
    for device in ("cpu", "gpu"):
        run = RunFolder(tmp_path / device)
        where = ["--trainer.accelerator", device, "--data.cache_dir", str(tmp_path / f"{device}-cache")]
        main(["fit", *flags, *where, "--run_dir", str(run.path)])
        found.append((run.read_metrics(), run.read_predictions()))
    (on_cpu, cpu_predictions), (on_gpu, gpu_predictions) = found
    assert on_gpu["device"] == torch.cuda.get_device_name()
    assert on_gpu["test"]["loss"]["value"] == pytest.approx(on_cpu["test"]["loss"]["value"], rel=1e-3)
    assert on_gpu["val"]["loss"] == pytest.approx(on_cpu["val"]["loss"], rel=1e-3)
    assert gpu_predictions.paths == cpu_predictions.paths
    assert gpu_predictions.probabilities == pytest.approx(cpu_predictions.probabilities, abs=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_captured_graphs_train_to_the_same_figures(
    model: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both compute in float32, in kernels of their own."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    flags = [*MODELS[model], *NOTHING_DRAWN, *(NO_BLOCK_DROPOUT if model == "benchmark" else [])]
    flags += ["--data.root", str(images), "--trainer.accelerator", "gpu", "--trainer.precision", "32-true", *SMALL]
    flags += ["--ema_decay", ".9", "--model.metrics", "{f1: torchmetrics.classification.MulticlassF1Score}"]
    main(["fit", *flags, "--run_dir", str(tmp_path / "plain")])
    main(["fit", *flags, *GRAPHS, "--run_dir", str(tmp_path / "graphs")])
    plain, captured = (RunFolder(tmp_path / name).read_metrics() for name in ("plain", "graphs"))
    assert captured["test"]["loss"]["value"] == pytest.approx(plain["test"]["loss"]["value"], rel=1e-3)
    assert captured["val"]["loss"] == pytest.approx(plain["val"]["loss"], rel=1e-3)
    assert captured["test"]["f1"]["value"] == pytest.approx(plain["test"]["f1"]["value"], abs=1e-3)


def test_captured_graphs_refuse_to_accumulate_gradients(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = [*MODELS["benchmark"], "--data.root", str(images), "--trainer.accelerator", "gpu", *SMALL, *GRAPHS]
    with pytest.raises(SystemExit, match="2"):
        main(["fit", *flags, "--trainer.accumulate_grad_batches", "2", "--run_dir", str(tmp_path)])
    assert "does not go with --trainer.accumulate_grad_batches 2; give mode default" in capsys.readouterr().err


@pytest.mark.parametrize("model", MODELS)
def test_no_step_waits_for_the_gpu(model: str, images: Path, tmp_path: Path) -> None:
    flags = [*MODELS[model], "--data.root", str(images), "--trainer.accelerator", "gpu", *SMALL]
    flags += ["--trainer.precision", "bf16-mixed", "--trainer.callbacks+", "no_waiting.NoWaiting"]
    before = NoWaiting.watched
    main(["fit", *flags, "--run_dir", str(tmp_path)])
    assert NoWaiting.watched - before == 3 * 5 - 2  # of 42 images in batches of 8, but for the last batches
    assert RunFolder(tmp_path).read_metrics()["epochs"] == 3
