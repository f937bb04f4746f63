"""What a network of one's own may have is kept and read again; the rest is refused before it is trained."""

import csv
import importlib
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor

from kth_lightning import BenchmarkCNN, FineTuned, ImageData, Predictor, fit
from kth_lightning.cli.main import main
from kth_lightning.errors import InputError
from kth_lightning.explain.cam import activation_maps
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.testing import check_classifier

NETS = """
    from collections.abc import Callable

    import torch
    from torch import nn

    from kth_lightning import Classifier


    class Smallest(Classifier):
        def __init__(self, num_classes: int, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.dense = nn.Linear(3, num_classes)

        def tail(self, images):
            return self.dense(images.mean((2, 3)))


    class Scaled(Smallest):
        def __init__(self, num_classes: int, scale=1.0, width=3, factors=None, odd=False, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.wide = nn.Linear(3, width)
            self.scale = scale * (factors or {1: 1.0})[1] * (2 if odd else 1)

        def tail(self, images):
            return self.dense(images.mean((2, 3))) * self.scale + self.wide(images.mean((2, 3))).mean(1, keepdim=True)


    class Passing(Smallest):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)


    class Activated(Smallest):
        def __init__(self, num_classes: int, activation: Callable[[], nn.Module] = nn.ReLU, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.activation = activation()


    class Features(Smallest):
        def __init__(self, num_classes: int, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.features = nn.Conv2d(3, 3, 3)


    class Count(Smallest):
        def __init__(self, num_classes: int, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.features = 3


    class Temperate(Smallest):
        def __init__(self, num_classes: int, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.temperature = nn.Parameter(torch.tensor(2.0))


    class Hidden(Smallest):
        average = None

        def __init__(self, num_classes: int, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.average = nn.AdaptiveAvgPool2d(1)


    class Lazy(Smallest):
        def __init__(self, num_classes: int, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.dense = nn.LazyLinear(num_classes)


    class Stateful(Smallest):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass


    class Sparse(Smallest):
        def __init__(self, num_classes: int, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.register_buffer("graph", torch.eye(3).to_sparse())


    class Pair(nn.Module):
        def forward(self, images):
            return images.mean((2, 3)), images.amax((2, 3))


    class Paired(Smallest):
        def __init__(self, num_classes: int, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.trunk = Pair()

        def tail(self, features):
            return self.dense(features[0])


    class NormedPair(Paired):
        def __init__(self, num_classes: int, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.trunk = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), Pair())


    class Masked(Smallest):
        def __init__(self, num_classes: int, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(3))

        def tail(self, images):
            return self.dense(images.mean((2, 3)) @ self.mask.softmax(1))


    class Complex(Smallest):
        def __init__(self, num_classes: int, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.filter = nn.Parameter(torch.ones(3, 32, 17, dtype=torch.cfloat))

        def tail(self, images):
            filtered = torch.fft.irfft2(torch.fft.rfft2(images.float()) * self.filter, s=images.shape[2:])
            return super().tail(filtered.abs())


    class Wide(nn.Module):
        def forward(self, images):
            return nn.functional.interpolate(images.float(), (24, 72)) / 255


    class Panorama(Smallest):
        def __init__(self, num_classes: int, channels_last: bool = False, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.preprocess = Wide()
            self.layer = nn.Conv2d(3, 3, 3, 2)
            self.last = nn.Identity()
            self.channels_last = channels_last

        def tail(self, images):
            maps = torch.relu(self.layer(images))
            if self.channels_last:
                return self.dense(self.last(maps.movedim(1, -1)).mean((1, 2)))
            return super().tail(maps)
"""


@pytest.fixture
def nets(mine: Callable[[str], None]) -> Any:
    mine(NETS)
    return importlib.import_module("mine")


def command(images: Path, run: Path, *flags: str) -> list[str]:
    args = ["fit", "--data.root", str(images), "--data.image_size", "32", "--data.views", "1", "--run_dir", str(run)]
    args += ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32"]
    return [*args, "--trainer.max_epochs", "2", *flags]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            "Activated --model.activation torch.nn.Tanh",
            "--model.activation: a checkpoint keeps a network's settings",
        ),
        ("Features", "--model: Features sets self.features, a name that Classifier uses otherwise; choose another"),
        ("Count", "--model: Count sets self.features, a name that Classifier uses otherwise; choose another"),
        ("Temperate", "--model: Temperate sets self.temperature, a name that Classifier uses otherwise"),
        ("Hidden", "--model: Hidden sets self.average, a name that Hidden uses otherwise; choose another"),
        (
            "Lazy",
            "--model: Lazy has a lazy layer (dense), whose size is not known before it is used; give it",
        ),
        ("Stateful", "--model: Stateful has a state that is no tensor (_extra_state, from get_extra_state), which"),
        ("Sparse", "--model: Sparse has a sparse tensor (graph), which a checkpoint cannot keep; make it a dense one"),
        ("Paired", "--model: the trunk of Paired gives a tuple, not a tensor; have it give one tensor [images, ...]"),
        ("NormedPair", "--model: the trunk of NormedPair gives a tuple, not a tensor; have it give one tensor"),
        ("Paired --trainer.fast_dev_run true", "--model: the trunk of Paired gives a tuple, not a tensor"),
    ],
)
def test_what_would_be_lost_or_never_used_is_refused_in_one_sentence(
    flags: str, sentence: str, nets: Any, images: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    assert sentence in refusal(*command(images, tmp_path / "run", "--model", *f"mine.{flags}".split()))


def test_settings_that_no_checkpoint_keeps_are_refused_in_python_too(nets: Any) -> None:
    for setting in (torch.nn.Tanh, torch.nn.Tanh(), np.zeros(3), {1, 2}):
        with pytest.raises(InputError, match=r"--model\.activation: a checkpoint keeps a network's settings as"):
            nets.Activated(3, activation=setting)
    assert nets.Activated(3).activation.training  # the class's own default comes again
    with pytest.raises(InputError, match=r"Passing was given settings by position in its \*args"):
        nets.Passing(3)


def test_numbers_of_numpy_and_keys_that_are_numbers_are_kept(nets: Any) -> None:
    given = {"scale": np.float32(30), "width": np.int64(5), "factors": {np.int64(1): 0.5}, "odd": np.bool_(True)}
    model = nets.Scaled(3, **given)
    kept = {name: model.settings[name] for name in given}
    assert kept == {"scale": 30.0, "width": 5, "factors": {1: 0.5}, "odd": True}
    assert [type(value) for value in kept.values()] == [float, int, dict, bool]
    check_classifier(nets.Scaled, **given)


def test_arguments_that_are_passed_on_by_name_are_kept(nets: Any) -> None:
    model = nets.Passing(num_classes=3, class_names=["a", "b", "c"], image_size=64)
    check_classifier(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Masked", "Complex"])
def test_an_infinite_mask_and_complex_weights_are_kept_averaged_and_predict(
    name: str, nets: Any, images: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    main(command(images, run.path, "--model", f"mine.{name}", "--ema_decay", "0.9"))
    predictor = Predictor(run.best_checkpoint, "cpu", model_class=getattr(nets, name))
    tested = run.read_predictions()
    expected = tested.probabilities[0].max()
    assert math.isfinite(expected)
    assert predictor(images / tested.paths[0]).probability == pytest.approx(expected, abs=1e-4)
    if name == "Complex":
        last = torch.load(run.last_checkpoint, weights_only=True)
        assert not torch.equal(last["state_dict"]["filter"], last["current_model_state"]["filter"])


@pytest.mark.parametrize("name", ["Masked", "Complex"])
def test_an_infinite_mask_and_complex_weights_come_back_from_a_checkpoint(name: str, nets: Any) -> None:
    check_classifier(getattr(nets, name), image_size=32)


def test_running_statistics_that_are_no_numbers_are_still_refused(tmp_path: Path) -> None:
    model = BenchmarkCNN(3, filters=(4, 4), block_dropout=(0.0, 0.0), image_size=32, batch_norm=True)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    name = next(name for name, _ in model.named_buffers() if name.endswith("running_var"))
    model.get_buffer(name)[0] = math.inf
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="has weights that are not finite numbers"):
        Predictor(tmp_path / "a.ckpt", "cpu")


def test_maps_of_images_that_are_not_square_are_shown(nets: Any) -> None:
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    _, maps = activation_maps(nets.Panorama(3, image_size=32), images)
    assert maps.shape == (2, 3, 11, 35)
    with pytest.raises(InputError, match=r"no maps \[B, D, h, w\], of about its images' shape, before it pools them"):
        activation_maps(nets.Panorama(3, channels_last=True, image_size=32), images)


@pytest.mark.parametrize("model", [BenchmarkCNN(3), FineTuned(3, backbone="test_resnet", weights="none")])
def test_a_model_goes_through_pickle(model: BenchmarkCNN | FineTuned) -> None:
    image = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(pickle.loads(pickle.dumps(model)).eval()(image), model.eval()(image))


class Stop(L.Callback):
    """Interrupt once, behind a batch."""

    def __init__(self, epoch: int) -> None:
        self.epoch: int | None = epoch

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if trainer.current_epoch == self.epoch and args[-1] == 1:
            self.epoch = None
            raise KeyboardInterrupt


@pytest.mark.slow
def test_the_same_objects_interrupted_in_any_epoch_end_as_they_would_have(images: Path, tmp_path: Path) -> None:
    def figures(name: str, epoch: int) -> list[dict[str, str]]:
        data = ImageData(root=str(images), image_size=32, batch_size=8, cache_dir=tmp_path / "cache")
        L.seed_everything(0)
        model = BenchmarkCNN(
            3, class_names=data.class_names, image_size=32, filters=(4, 4), block_dropout=(0.0, 0.1), batch_norm=True
        )
        stop = Stop(epoch)
        settings: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "precision": "32-true", "logger": False}
        if epoch < 2:
            with pytest.raises(KeyboardInterrupt):
                fit(model, data, tmp_path / name, max_epochs=2, callbacks=[stop], **settings)
        run = fit(model, data, tmp_path / name, max_epochs=2, callbacks=[stop], **settings)
        rows = csv.DictReader(run.history.read_text().splitlines())
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    straight = figures("straight", 99)
    assert figures("first", 0) == straight
    assert figures("second", 1) == straight
    assert len(straight) == 2


@pytest.mark.parametrize(
    ("callback", "sentence"),
    [
        (
            "LearningRateFinder",
            "would train at another learning rate than config.yaml tells; give",
        ),
        ("BatchSizeFinder", "would train with another batch size than config.yaml tells; give --data.batch_size"),
        (
            "BackboneFinetuning",
            "would train what a classifier keeps frozen in its trunk; give --model FineTuned",
        ),
    ],
)
def test_a_callback_that_would_make_another_run_of_it_is_refused(
    callback: str, sentence: str, images: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    line = refusal(*command(images, tmp_path / "run", "--model", "BenchmarkCNN", "--trainer.callbacks", callback))
    assert f"--trainer.callbacks: {callback} {sentence}" in line


@pytest.mark.slow
def test_a_setting_that_was_an_object_in_python_is_said_to_be_one(
    nets: Any, images: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    class Loss(torch.nn.Module):
        gamma = 1.0

        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    data = ImageData(root=str(images), image_size=32)
    model = nets.Smallest(3, class_names=data.class_names, image_size=32, loss=Loss())
    run = fit(model, data, tmp_path / "run", max_epochs=1, accelerator="cpu", devices=1, logger=False)
    line = refusal("fit", "--config", run.config, "--run_dir", tmp_path / "other")
    assert f"--config {run.config}: model.init_args.loss was an object in Python (<test_networks_that_are_kept." in line
    assert line.endswith("repeat the run from Python, or give a class path in its place")
