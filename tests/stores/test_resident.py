from pathlib import Path

import pytest
import torch

from kth_lightning.data.dataset import FeatureDataset
from kth_lightning.data.sampler import BatchShares, EpochOrder
from kth_lightning.stores.resident import ResidentRows, resident
from kth_lightning.stores.store import MIRRORED, Store

CPU = torch.device("cpu")
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NEEDS_CUDA])]


def filled(folder: Path, number: int = 50) -> Store:
    store = Store(folder, torch.arange(100, 100 + number).flip(0), {0: 0, 2: 77, MIRRORED: -1})
    for view in (0, 2, MIRRORED):
        every = torch.arange(number)
        store.write(every, torch.full_like(every, view), (every[:, None] * 10.0 + view).expand(-1, 3))
    store.open()
    return store


@pytest.mark.parametrize("device", DEVICES)
def test_resident_rows_are_those_of_the_store(device: str, tmp_path: Path) -> None:
    store, part = filled(tmp_path), torch.tensor([7, 49, 3, 20])
    rows = ResidentRows(store, part, [0, MIRRORED], torch.device(device))
    index, view = torch.tensor([3, 49, 49, 7]), torch.tensor([MIRRORED, 0, MIRRORED, 0])
    assert rows.shape == store.shape == (3,)
    for some in ((index, view), (part,)):
        gathered = rows.at(rows.places(*some).to(device))
        assert gathered.device.type == device
        assert torch.equal(gathered.cpu(), store.fetch(*some))


@pytest.mark.parametrize("device", DEVICES)
def test_batches_are_the_same_wherever_their_rows_are(device: str, tmp_path: Path) -> None:
    store, part = filled(tmp_path), torch.tensor([7, 49, 3, 20, 11])
    labels = torch.arange(50) % 4
    batches = []
    for rows in (store, ResidentRows(store, part, [0, 2, MIRRORED], torch.device(device))):
        dataset = FeatureDataset(rows, part, labels, mirrored=True)
        shares = BatchShares(EpochOrder(5, True, 3), 2, [2], dataset.look_up, rank=1, world_size=2)
        batches.append([dataset[share] for (share,) in shares])
    for of_store, of_device in zip(*batches, strict=True):
        assert of_store.keys() == of_device.keys() == {"index", "view", "label", "count", "features", "mirrored"}
        for name, value in of_store.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(of_device[name]).cpu()), name
    assert [batch["count"] for batch in batches[0]] == [2, 2, 1]
    assert batches[0][-1]["label"].tolist() == [-1]


def test_a_cpu_keeps_its_rows_in_the_store(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert resident(store, torch.arange(50), [0], CPU) is store


def test_rows_that_take_more_than_half_of_a_gpus_free_memory_stay_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * 50 * 12 - 1, 10**9))
    assert resident(store, torch.arange(50), [0], torch.device("cuda")) is store


@pytest.mark.gpu
@NEEDS_CUDA
def test_a_gpu_takes_the_rows_that_fit(tmp_path: Path) -> None:
    assert isinstance(resident(filled(tmp_path), torch.arange(50), [0], torch.device("cuda")), ResidentRows)
