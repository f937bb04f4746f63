from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from loader_batches import batches, joined
from PIL import Image

from kth_lightning.data.batch import PADDING
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError

COUNTS = {"cat": 40, "cow": 12, "dog": 9}


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    root = tmp_path_factory.mktemp("uneven") / "animals"
    for label, count in COUNTS.items():
        (root / label).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def data_of(uneven: Path) -> Callable[..., ImageData]:
    def make(balance: Any, **settings: Any) -> ImageData:
        return ImageData(**{"root": str(uneven), "image_size": 32, "batch_size": 8, "balance": balance} | settings)

    return make


def counts_of(data: ImageData) -> torch.Tensor:
    return torch.bincount(data.labels[data.split.indices("train")])


@pytest.mark.parametrize("balance", ["inverse", True])
def test_inverse_factors_weigh_classes_alike_and_images_one_on_the_average(
    data_of: Callable[..., ImageData], balance: Any
) -> None:
    data = data_of(balance)
    weights, counts = torch.tensor(data.class_weights), counts_of(data)
    assert (weights * counts).tolist() == pytest.approx([int(counts.sum()) / 3] * 3)


@pytest.mark.parametrize("beta", [None, 0.5, 0.9])
def test_effective_factors_are_cuis_and_images_have_one_on_the_average(
    data_of: Callable[..., ImageData], beta: float | None
) -> None:
    data = data_of("effective", balance_beta=beta)
    weights, counts, beta = torch.tensor(data.class_weights), counts_of(data), 0.99 if beta is None else beta
    effective = (1 - beta**counts) / (1 - beta)
    assert (weights * effective / (weights[0] * effective[0])).tolist() == pytest.approx([1, 1, 1])
    assert float((weights * counts).sum() / counts.sum()) == pytest.approx(1)


def test_effective_factors_go_from_none_to_the_inverse_numbers(data_of: Callable[..., ImageData]) -> None:
    assert data_of("effective", balance_beta=0.0).class_weights == pytest.approx([1, 1, 1])
    nearly = data_of("effective", balance_beta=1 - 1e-9).class_weights
    assert nearly == pytest.approx(data_of("inverse").class_weights, rel=1e-5)


@pytest.mark.parametrize("balance", ["none", "sampling", False])
def test_other_choices_have_no_factors(data_of: Callable[..., ImageData], balance: Any) -> None:
    assert data_of(balance).class_weights is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"balance": "focal"}, "--data.balance focal: give one of none, inverse, effective, sampling"),
        ({"balance": "effective", "balance_beta": 1.0}, "give a number from 0 to below 1"),
        ({"balance": "effective", "balance_beta": float("nan")}, "give a number from 0 to below 1"),
        ({"balance": "inverse", "balance_beta": 0.9}, "goes with --data.balance effective; leave it out"),
    ],
)
def test_bad_choices_are_named(data_of: Callable[..., ImageData], settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        data_of(**settings)


def test_every_epoch_of_balanced_sampling_has_every_class_equally_often_and_the_same_length(
    data_of: Callable[..., ImageData],
) -> None:
    data = data_of("sampling")
    number = len(data.split.indices("train"))
    seen: Counter[int] = Counter()
    for epoch in range(12):
        found = batches(data, epoch=epoch)
        index, labels = joined(found), joined(found, "label")
        assert len(index) == number
        assert [batch["count"] for batch in found] == [len(batch["index"]) for batch in found]
        assert torch.equal(labels, data.labels[index])
        of_class = torch.bincount(labels)
        assert of_class.max() - of_class.min() == 1
        for label in range(3):
            times = Counter(index[labels == label].tolist())
            own = int(counts_of(data)[label])
            assert max(times.values()) - (min(times.values()) if len(times) == own else 0) <= 1
        seen.update(index.tolist())
    assert set(seen) == set(data.split.indices("train").tolist())


def test_draws_depend_on_seed_and_epoch_alone(data_of: Callable[..., ImageData]) -> None:
    first = joined(batches(data_of("sampling", seed=3), epoch=4))
    torch.manual_seed(9)
    np.random.seed(9)
    again = data_of("sampling", seed=3)
    batches(again, epoch=1)
    assert torch.equal(joined(batches(again, epoch=4)), first)
    assert not torch.equal(joined(batches(again, epoch=5)), first)
    assert not torch.equal(joined(batches(data_of("sampling", seed=4), epoch=4)), first)


def test_two_processes_share_out_the_batches_of_one(data_of: Callable[..., ImageData]) -> None:
    settings: dict[str, Any] = {"augmentation": "flip", "views": 3}
    data = data_of("sampling", **settings)
    whole = batches(data, epoch=2)
    shares = [batches(data, epoch=2, rank=rank, world_size=2) for rank in range(2)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert len(parts[0]["index"]) == len(parts[1]["index"])
        for name in ("index", "view"):
            together = torch.stack([part[name] for part in parts], dim=1).flatten()
            real = torch.stack([part["label"] for part in parts], dim=1).flatten() != PADDING
            assert torch.equal(together[real], batch[name])


@pytest.mark.parametrize("views", [None, 4, 0])
def test_an_image_that_comes_again_comes_in_another_view(data_of: Callable[..., ImageData], views: int | None) -> None:
    data = data_of("sampling", augmentation="flip", views=views)
    pairs: list[tuple[int, int]] = []
    for epoch in range(6):
        found = batches(data, epoch=epoch)
        index, view = joined(found).tolist(), joined(found, "view").tolist()
        times = Counter(index)
        assert max(times.values()) >= 2
        if views == 0:
            assert set(view) == {0}
            continue
        of_epoch = Counter(zip(index, view, strict=True))
        assert max(of_epoch.values()) == (1 if views is None else -(-max(times.values()) // views))
        assert views is None or {*view} <= {1, 2, 3, 4}
        pairs += of_epoch.keys()
    if views is None:
        assert len(set(pairs)) == len(pairs)  # no view of an image comes in two epochs


def test_validation_and_test_are_as_they_are(data_of: Callable[..., ImageData]) -> None:
    data = data_of("sampling")
    for part in ("val", "test"):
        assert joined(batches(data, part)).tolist() == data.split.indices(part).tolist()  # type: ignore[arg-type]


def test_images_to_overfit_on_are_the_first(data_of: Callable[..., ImageData]) -> None:
    data = data_of("sampling")
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=0, world_size=1, overfit_batches=1, strategy=strategy
    )
    data.setup("fit")
    assert joined(list(data.train_dataloader())).tolist() == data.split.indices("train").tolist()
