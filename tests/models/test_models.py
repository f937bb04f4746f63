import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader
from torchmetrics import F1Score
from torchmetrics.classification import MulticlassF1Score
from torchmetrics.functional import classification as reference

from kth_lightning.data.batch import PADDING, Batch
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.models import BenchmarkCNN, Classifier, FeatureHead, FineTuned
from kth_lightning.models.layers import Dropout, spare_single_values
from kth_lightning.models.mixup import Mixup
from kth_lightning.models.schedule import Cosine

SMALL: dict[str, Any] = {"filters": (8, 8), "block_dropout": (0.0, 0.0), "dropout": 0.0}


def data_of(images: Path, **settings: Any) -> ImageData:
    return ImageData(**{"root": str(images), "image_size": 32, "batch_size": 8} | settings)


def trainer_of(**settings: Any) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    quiet["enable_checkpointing"] = any(isinstance(item, Checkpoint) for item in settings.get("callbacks", []))
    fixed = {"accelerator": "cpu", "devices": 1, "num_sanity_val_steps": 0, "use_distributed_sampler": False}
    return Trainer(**fixed | quiet | {"max_epochs": 1, "log_every_n_steps": 1} | settings)


class StopAfter(Checkpoint):
    """Write a checkpoint after so many epochs, where Lightning writes its own, and stop."""

    def __init__(self, epochs: int, file: Path) -> None:
        self.epochs = epochs
        self.file = file

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.epochs - 1:
            trainer.save_checkpoint(self.file)
            trainer.should_stop = True


def loader_of(*batches: Batch) -> DataLoader:
    return DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type]


def sgd(lr: float) -> Callable[..., torch.optim.Optimizer]:
    return partial(torch.optim.SGD, lr=lr, momentum=0.9)


def trained(model: Classifier) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """Give files of different weights of timm's test_resnet."""
    folder = tmp_path_factory.mktemp("weights")

    def draw(seed: int) -> str:
        torch.manual_seed(seed)
        torch.save(timm.create_model("test_resnet").state_dict(), folder / f"{seed}.pth")
        return str(folder / f"{seed}.pth")

    return draw


def test_the_articles_models_have_its_numbers_of_parameters() -> None:
    benchmark = BenchmarkCNN(num_classes=19)
    assert trained(benchmark) == sum(item.numel() for item in benchmark.parameters()) == 3_920_531
    assert trained(FeatureHead(num_classes=19, weights="none")) == 9_747
    fine_tuned = FineTuned(num_classes=19, weights="none")
    assert trained(fine_tuned) == 9_448_979
    assert sum(item.numel() for item in fine_tuned.parameters()) == 20_034_131


def test_class_defaults_are_the_articles() -> None:
    benchmark, head = BenchmarkCNN(19), FeatureHead(19, weights="none")
    fine_tuned = FineTuned(19, weights="none")
    assert [item.p for item in benchmark.modules() if isinstance(item, nn.Dropout)] == [0, 0, 0, 0.5, 0.4, 0.3]
    assert [item.p for item in head.head.modules() if isinstance(item, nn.Dropout)] == [0.7]
    for model in (benchmark, head):
        (optimizer,) = [model.configure_optimizers()]
        assert isinstance(optimizer, torch.optim.RMSprop)
        assert {name: optimizer.defaults[name] for name in ("lr", "alpha", "eps", "momentum")} == {
            **{"lr": 1e-3, "alpha": 0.9, "eps": 1e-7, "momentum": 0}
        }
    optimizer = fine_tuned.configure_optimizers()
    assert isinstance(optimizer, torch.optim.SGD)
    assert {(group["lr"], group["momentum"]) for group in optimizer.param_groups} == {(1e-4, 0.9)}


def test_only_the_tail_is_in_the_optimiser_and_the_head_can_learn_faster() -> None:
    model = FineTuned(3, "test_resnet", weights="none", optimizer=sgd(0.1), backbone_lr_scale=0.5)
    head, stages = model.configure_optimizers().param_groups  # type: ignore[union-attr]
    assert (head["lr"], stages["lr"]) == (0.1, 0.05)
    given = {id(item) for group in (head, stages) for item in group["params"]}
    assert given == {id(item) for item in model.parameters() if item.requires_grad}
    assert given.isdisjoint(id(item) for item in model.trunk.parameters())


def test_the_trunk_does_not_move_and_the_tail_does(images: Path) -> None:
    model = FineTuned(3, "tf_efficientnet_lite0", trained_stages=1, weights="none", optimizer=sgd(0.01))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trainer_of(limit_train_batches=2, limit_val_batches=1).fit(model, data_of(images, image_size=64))
    moved = {key for key, value in model.state_dict().items() if not value.equal(before[key])}
    assert not any(key.startswith(("trunk.", "preprocess.")) for key in moved)
    assert {"stages.0.0.weight", "stages.0.1.running_mean", "head.1.weight", "head.1.bias"} <= moved
    model.train()
    assert model.stages.training
    assert not any(module.training for module in model.trunk.modules())


def clean_logits(model: Classifier, data: ImageData, part: str) -> tuple[Tensor, Tensor]:
    index = torch.from_numpy(data.split.indices(part))
    model.eval()
    with torch.no_grad():
        return model(data.images(index, torch.zeros_like(index), torch.device("cpu"))), data.labels[index]


def test_figures_of_an_epoch_with_uneven_batches_are_those_of_all_images_at_once(images: Path) -> None:
    data = data_of(images, batch_size=4)
    torch.manual_seed(0)
    model = BenchmarkCNN(3, **SMALL, optimizer=sgd(0.0))
    trainer = trainer_of()
    trainer.fit(model, data)
    figures = {name: value.item() for name, value in trainer.logged_metrics.items()}
    trainer.test(model, data, verbose=False)
    figures |= {name: value.item() for name, value in trainer.logged_metrics.items()}
    sizes = [len(data.split.indices(part)) for part in ("train", "val", "test")]
    assert sizes == [42, 9, 9]
    for part in ("train", "val", "test"):
        logits, labels = clean_logits(model, data, part)
        expected = {
            "loss": F.cross_entropy(logits, labels),
            "acc": reference.multiclass_accuracy(logits, labels, 3, average="micro"),
            "kappa": reference.multiclass_cohen_kappa(logits, labels, 3),
            "recall": reference.multiclass_recall(logits, labels, 3, average="macro"),
        }
        for name, value in expected.items():
            assert figures[f"{part}/{name}"] == pytest.approx(value.item(), abs=1e-5), (part, name)


def test_padding_counts_nowhere() -> None:
    model = BenchmarkCNN(3, **SMALL)
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    padded = torch.tensor([0, PADDING, 2, 0, PADDING, PADDING])

    def figures(*batches: Batch) -> dict[str, float]:
        (found,) = trainer_of().validate(model, loader_of(*batches), verbose=False)
        return dict(found)

    def batch(rows: slice | Tensor, given: Tensor) -> Batch:
        index = torch.arange(6)[rows]
        return {"part": "val", "index": index, "label": given[rows], "images": images[rows], "count": 3}

    real = padded != PADDING
    with_padding = figures(batch(slice(0, 4), padded), batch(slice(4, 6), padded))
    assert with_padding == pytest.approx(figures(batch(real, labels)), abs=1e-6)


def test_stored_features_of_mirror_images_count_as_mirrored_images_do() -> None:
    model = FeatureHead(3, "test_resnet", weights="none", tta_flip=True).eval()
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    batch = {"part": "val", "index": torch.arange(6), "label": torch.tensor([0, 1, 2, 0, 1, 2]), "count": 6}
    stored = {"features": model.features(images), "mirrored": model.features(images.flip(3))}
    found = [
        trainer_of().validate(model, loader_of(batch | fetched), verbose=False)[0]
        for fetched in (stored, {"images": images}, {"features": stored["features"]})
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert found[2]["val/loss"] != pytest.approx(found[1]["val/loss"], abs=1e-6)


def test_gradients_of_all_shares_together_are_those_of_the_batch() -> None:
    model = BenchmarkCNN(3, **SMALL, class_weights=[0.5, 1.0, 2.0], label_smoothing=0.1)
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 2, 2, 1])

    def gradient(world_size: int, rows: list[int], given: Tensor) -> Tensor:
        model.trainer = SimpleNamespace(world_size=world_size)  # type: ignore[assignment]
        batch = {"index": torch.tensor(rows), "label": given, "images": images[rows], "count": 5}
        model.zero_grad()
        model.training_step(batch, 0).backward()
        return torch.cat([item.grad.flatten() for item in model.parameters()])

    whole = gradient(1, [0, 1, 2, 3, 4], labels)
    shares = [
        gradient(2, [0, 2, 4], labels[[0, 2, 4]]),
        gradient(2, [1, 3, 0], torch.tensor([1, 2, PADDING])),
    ]
    torch.testing.assert_close(torch.stack(shares).mean(0), whole)


def test_class_weights_and_smoothing_shape_the_training_loss_only() -> None:
    torch.manual_seed(0)
    model = BenchmarkCNN(3, **SMALL, class_weights=[0.2, 1.0, 3.0], label_smoothing=0.1)
    batch = {
        **{"part": "train", "index": torch.arange(4), "label": torch.tensor([0, 1, 2, 2]), "count": 4},
        "images": torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8),
    }
    model.trainer = SimpleNamespace(world_size=1)  # type: ignore[assignment]
    logits = model(batch["images"])
    weighted = F.cross_entropy(
        logits, batch["label"], torch.tensor([0.2, 1.0, 3.0]), label_smoothing=0.1, reduction="none"
    )
    assert model.training_step(batch, 0).item() == pytest.approx(weighted.mean().item(), rel=1e-5)
    (figures,) = trainer_of().validate(model, loader_of(batch), verbose=False)
    assert figures["val/loss"] == pytest.approx(F.cross_entropy(logits, batch["label"]).item(), rel=1e-5)


@pytest.mark.parametrize("field", ["images", "features"])
def test_mixup_trains_on_mixtures_of_inputs_towards_the_same_mixtures_of_labels(field: str) -> None:
    model = BenchmarkCNN(3, **SMALL, mixup=0.4)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    batch = {"part": "train", "index": torch.arange(4), "label": torch.tensor([0, 1, 2, 2]), "count": 4}
    model.trainer = SimpleNamespace(world_size=1)  # type: ignore[assignment]
    torch.manual_seed(5)
    given = images if field == "images" else model.features(images)
    loss = model.training_step(batch | {field: given}, 0)
    torch.manual_seed(5)
    share, partners = torch.distributions.Beta(0.4, 0.4).sample(), torch.randperm(4)
    inputs, targets = model.features(images), F.one_hot(batch["label"], 3).float()
    mixed, wanted = (share * item + (1 - share) * item[partners] for item in (inputs, targets))
    assert 0.01 < share < 0.99
    assert loss.item() == pytest.approx(F.cross_entropy(model.tail(mixed), wanted).item(), rel=1e-5)
    model.eval()
    torch.testing.assert_close(model(images), model.tail(inputs))


def test_no_image_is_mixed_with_a_row_of_padding() -> None:
    labels = torch.tensor([2, 0, 1, PADDING, PADDING])
    mixup, partners = Mixup(0.2), {}
    for padded in (False, True):
        torch.manual_seed(0)
        partners[padded] = torch.stack([mixup.draw(labels, padded).partners[:3] for _ in range(20)])
    unusable = partners[False] > 2
    assert unusable.any()
    assert torch.equal(partners[True], torch.where(unusable, torch.arange(3), partners[False]))


def test_mixup_below_zero_is_refused() -> None:
    with pytest.raises(InputError, match=r"--model.mixup -1"):
        BenchmarkCNN(3, **SMALL, mixup=-1)


def test_predictions_are_gathered_in_the_order_of_the_catalogue_without_padding() -> None:
    model = BenchmarkCNN(3, **SMALL)
    index, labels = torch.tensor([4, 1, 3, 0]), torch.tensor([2, 1, 0, PADDING])
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    batches = [
        {"part": "test", "index": index[rows], "label": labels[rows], "images": images[rows], "count": 2}
        for rows in (slice(0, 2), slice(2, 4))
    ]
    gathered = []

    class Gather(Callback):
        def on_test_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
            gathered.extend(pl_module.predictions("test"))

    trainer_of(callbacks=[Gather()]).test(model, loader_of(*batches), verbose=False)
    assert gathered[0].tolist() == [1, 3, 4]
    assert gathered[1].tolist() == [1, 0, 2]
    with torch.no_grad():
        torch.testing.assert_close(gathered[2], model.eval()(images)[[1, 2, 0]])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_logits_are_finite_and_float32(precision: str) -> None:
    images = torch.cat([torch.zeros(1, 3, 32, 32), torch.full((1, 3, 32, 32), 255), torch.rand(1, 3, 32, 32) * 255])
    for model in (BenchmarkCNN(3), FeatureHead(3, "test_resnet", weights="none")):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"), torch.no_grad():
            logits = model.eval()(images.to(torch.uint8))
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()


def plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def test_a_checkpoint_is_small_and_plain_and_predicts_the_same_again(
    images: Path, weights: Callable[[int], str], tmp_path: Path
) -> None:
    data = data_of(images)
    settings: dict[str, Any] = {"weights": weights(0), "class_names": data.class_names}
    for kind in (FeatureHead, FineTuned):
        model = kind(3, "test_resnet", **settings)
        trainer = trainer_of()
        trainer.fit(model, data)
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
        assert not any(key.startswith("trunk.") for key in checkpoint["state_dict"])
        assert {"head.1.weight", "preprocess.mean"} <= checkpoint["state_dict"].keys()
        hyperparameters = dict(checkpoint["hyper_parameters"])
        assert plain(hyperparameters)
        assert settings.items() <= hyperparameters.items()
        other = kind(3, "test_resnet", **settings)
        trainer_of().validate(other, data, ckpt_path=tmp_path / "a.ckpt", weights_only=True, verbose=False)
        assert clean_logits(other, data, "val")[0].equal(clean_logits(model, data, "val")[0])
        assert trained(other) == trained(model)


def test_a_resumed_training_goes_on_as_it_would_have(
    images: Path, weights: Callable[[int], str], tmp_path: Path
) -> None:
    def model() -> FineTuned:
        torch.manual_seed(0)
        settings: dict[str, Any] = {"optimizer": sgd(0.01), "lr_scheduler": partial(Cosine, warmup=0.5), "dropout": 0.5}
        return FineTuned(3, "test_resnet", weights=weights(0), **settings)

    def fit(fitted: FineTuned, stop: Callback, resume: Path | None = None) -> Trainer:
        trainer = trainer_of(max_epochs=4, limit_train_batches=3, callbacks=[stop])
        trainer.fit(fitted, data_of(images, augmentation="standard"), ckpt_path=resume, weights_only=True)
        return trainer

    straight, stopped, resumed = model(), model(), model()
    fit(straight, StopAfter(4, tmp_path / "4.ckpt"))
    fit(stopped, StopAfter(2, tmp_path / "2.ckpt"))
    assert not stopped.head[1].weight.equal(straight.head[1].weight)
    torch.manual_seed(99)
    fit(resumed, StopAfter(4, tmp_path / "4.ckpt"), tmp_path / "2.ckpt")
    for key, value in straight.state_dict().items():
        assert value.equal(resumed.state_dict()[key]), key


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["class0", "class1", "zebra"], r"--ckpt_path: .* 3 classes .* has 3 \(class2, zebra\)"),
        (["class0", "class2", "class1"], "in another order"),
    ],
)
def test_a_checkpoint_of_other_classes_is_refused(images: Path, names: list[str], message: str, tmp_path: Path) -> None:
    data, trainer = data_of(images), trainer_of(limit_train_batches=1, limit_val_batches=1)
    trainer.fit(BenchmarkCNN(3, **SMALL, class_names=data.class_names), data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=message):
        trainer_of().validate(
            BenchmarkCNN(3, **SMALL, class_names=names), data, ckpt_path=tmp_path / "a.ckpt", weights_only=True
        )


@pytest.fixture
def head_checkpoint(images: Path, weights: Callable[[int], str], tmp_path: Path) -> tuple[FeatureHead, Path]:
    data, trainer = data_of(images), trainer_of(limit_train_batches=2, limit_val_batches=1)
    head = FeatureHead(3, "test_resnet", weights=weights(0), class_names=data.class_names)
    trainer.fit(head, data)
    trainer.save_checkpoint(tmp_path / "head.ckpt")
    return head, tmp_path / "head.ckpt"


def test_a_checkpoint_on_other_weights_is_refused(
    images: Path, weights: Callable[[int], str], head_checkpoint: tuple[FeatureHead, Path]
) -> None:
    other = FeatureHead(3, "test_resnet", weights=weights(1), class_names=head_checkpoint[0].class_names)
    with pytest.raises(InputError, match=r"--ckpt_path: .*other weights .*give those with the hash [0-9a-f]{12}"):
        trainer_of().validate(other, data_of(images), ckpt_path=head_checkpoint[1], weights_only=True)


def test_fine_tuning_starts_from_a_trained_head(
    weights: Callable[[int], str], head_checkpoint: tuple[FeatureHead, Path]
) -> None:
    head, file = head_checkpoint
    settings = {"weights": weights(0), "class_names": head.class_names, "init_head_from": str(file)}
    model = FineTuned(3, "test_resnet", **settings)  # type: ignore[arg-type]
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), head.eval()(images))
    with pytest.raises(InputError, match=r"--model\.init_head_from: .*other classes"):
        FineTuned(3, "test_resnet", **settings | {"class_names": ["a", "b", "c"]})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"--model\.init_head_from: .*other weights"):
        FineTuned(3, "test_resnet", **settings | {"weights": weights(1)})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"--model\.init_head_from: .*other classes|does not fit"):
        FineTuned(4, "test_resnet", **settings | {"class_names": None})  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04" + bytes(50)])
def test_a_head_that_is_no_checkpoint_is_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "head.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=r"--model\.init_head_from: .*head\.ckpt is missing or not a checkpoint"):
        FineTuned(3, "test_resnet", weights="none", init_head_from=str(tmp_path / "head.ckpt"))


def rates_of(images: Path, schedule: Any, epochs: int = 4, **trainer: Any) -> list[float]:
    rates: list[float] = []

    class Record(BenchmarkCNN):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            rates.append(optimizer.param_groups[0]["lr"])

    model = Record(3, **SMALL, lr_scheduler=schedule, optimizer=sgd(0.1))
    trainer_of(max_epochs=epochs, limit_train_batches=2, limit_val_batches=1, **trainer).fit(model, data_of(images))
    return rates


@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_learning_rate_rises_and_falls_by_the_step(images: Path, warmup: float) -> None:
    rising = round(8 * warmup)
    expected = [
        (step + 1) / (rising + 1) if step < rising else 0.5 * (1 + math.cos(math.pi * (step - rising) / (8 - rising)))
        for step in range(8)
    ]
    assert rates_of(images, partial(Cosine, warmup=warmup)) == pytest.approx([0.1 * factor for factor in expected])


def test_torchs_schedules_go_by_the_step_or_by_the_epoch_as_they_are_made_to(images: Path) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1, momentum=0.9)
    reference = OneCycleLR(optimizer, 0.2, total_steps=8)
    expected = []
    for _ in range(8):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert rates_of(images, partial(OneCycleLR, max_lr=0.2)) == pytest.approx(expected)
    assert rates_of(images, partial(StepLR, step_size=1), epochs=3) == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )
    stuck = partial(ReduceLROnPlateau, patience=0, threshold=1e9)
    assert rates_of(images, stuck, epochs=3)[::2] == pytest.approx([0.1, 0.01, 0.001])


def test_a_schedule_without_an_end_is_refused(images: Path) -> None:
    with pytest.raises(InputError, match=r"--model\.lr_scheduler needs an end: give --trainer\.max_epochs"):
        trainer_of(max_epochs=-1).fit(BenchmarkCNN(3, **SMALL, lr_scheduler=Cosine), data_of(images))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": partial(torch.optim.SGD, betas=3)}, r"--model\.optimizer: it cannot be made .*'betas'"),
        ({"optimizer": partial(torch.optim.Adam, betas=(2.0, 2.0))}, r"--model\.optimizer: it cannot be made .*beta"),
        ({"optimizer": torch.optim.LBFGS}, r"--model\.optimizer: .*LBFGS"),
        ({"optimizer": torch.optim.SparseAdam}, r"--model\.optimizer: SparseAdam wants"),
        ({"lr_scheduler": partial(Cosine, warmup=2.0)}, r"--model\.lr_scheduler: it cannot be made \(warmup 2.0"),
        ({"loss": nn.CrossEntropyLoss()}, r"--model\.loss: CrossEntropyLoss gives a tensor of shape \[\] for 2"),
        ({"loss": nn.BCELoss(reduction="none")}, r"--model\.loss: BCELoss fails with logits \[2, 3\]"),
        (
            {"loss": nn.CrossEntropyLoss(reduction="none"), "label_smoothing": 0.1},
            r"--model\.label_smoothing goes with",
        ),
        ({"metrics": {"acc": MulticlassF1Score}}, r"--model\.metrics: 'acc' is taken"),
        ({"metrics": {"a/b": MulticlassF1Score}}, r"--model\.metrics: 'a/b' is taken, or no plain word"),
        ({"metrics": {"f1": partial(MulticlassF1Score, average=None)}}, r"--model\.metrics: f1 gives more than one"),
        ({"metrics": {"f1": F1Score}}, r"--model\.metrics: f1 fails with logits \[2, 3\]"),
    ],
)
def test_parts_that_cannot_be_used_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BenchmarkCNN(3, **SMALL, **settings)


class Halved(nn.Module):
    """Half of the cross-entropy, with a weight that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.scale * F.cross_entropy(logits, labels, reduction="none")


def test_a_loss_of_ones_own_is_trained_with_and_evaluation_stays_the_cross_entropy() -> None:
    model = BenchmarkCNN(3, **SMALL, loss=Halved(), class_weights=[0.2, 1.0, 3.0], metrics={"f1": MulticlassF1Score})
    labels = torch.tensor([0, 1, 2, PADDING])
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    batch = {"part": "train", "index": torch.arange(4), "label": labels, "count": 3, "images": images}
    model.trainer = SimpleNamespace(world_size=1)  # type: ignore[assignment]
    losses = F.cross_entropy(model(images[:3]), labels[:3], reduction="none")
    expected = (losses * torch.tensor([0.2, 1.0, 3.0])).mean() / 2
    assert model.training_step(batch, 0).item() == pytest.approx(expected.item(), rel=1e-5)
    (figures,) = trainer_of().validate(model, loader_of(batch), verbose=False)
    assert figures["val/loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    f1 = reference.multiclass_f1_score(model.eval()(images[:3]), labels[:3], 3, average="macro")
    assert figures["val/f1"] == pytest.approx(f1.item())
    assert model.loss.scale in set(model.configure_optimizers().param_groups[0]["params"])


def test_blocks_and_their_dropouts_must_match() -> None:
    with pytest.raises(InputError, match=r"--model\.block_dropout: 3 blocks have 5 values"):
        BenchmarkCNN(3, filters=(8, 8, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.999999, 1.0])
def test_dropout_drops_its_share_and_scales_what_it_keeps(rate: float, dtype: torch.dtype) -> None:
    features = torch.full((4, 63, 25, 25), 2.0, dtype=dtype).to(memory_format=torch.channels_last)
    layer, inputs = Dropout(rate), features.clone().requires_grad_()
    torch.manual_seed(0)
    outputs = layer(inputs)
    outputs.sum().backward()
    assert inputs.grad is not None
    assert torch.equal(outputs.detach(), features * inputs.grad)
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    kept, entries = inputs.grad != 0, features.numel()
    assert abs(int(kept.sum()) - (1 - rate) * entries) <= 4 * (entries * rate * (1 - rate)) ** 0.5
    if 0 < rate < 0.9:
        torch.testing.assert_close(
            inputs.grad[kept], torch.full_like(inputs.grad[kept], 1 / (1 - rate)), rtol=1e-4, atol=0
        )
        neighbours = kept[..., 1:] & kept[..., :-1]  # of one draw of 64 bits, or of two
        assert neighbours.float().mean() == pytest.approx((1 - rate) ** 2, abs=0.01)
    torch.manual_seed(0)
    assert torch.equal(layer(features), outputs)
    assert not torch.equal(layer(features), outputs) or rate in (0.0, 0.999999, 1.0)
    assert layer.eval()(features) is features


def test_batch_normalisation_takes_its_running_statistics_of_one_value_and_the_batchs_of_more() -> None:
    network = nn.Sequential(nn.BatchNorm2d(4), nn.Flatten(), nn.BatchNorm1d(4))
    spare_single_values(network)
    one, two = torch.randn(1, 4, 1, 1), torch.randn(2, 4, 1, 1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    alone = network(one)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key])
    torch.testing.assert_close(alone, network.eval()(one))
    fresh = nn.Sequential(nn.BatchNorm2d(4), nn.Flatten(), nn.BatchNorm1d(4))
    torch.testing.assert_close(network.train()(two), fresh(two))
    network(one)
    torch.testing.assert_close(network(two), fresh(two))
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, fresh.state_dict()[key])
