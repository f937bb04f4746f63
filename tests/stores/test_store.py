import os
import resource
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from kth_lightning.stores import store as store_module
from kth_lightning.stores.store import MIRRORED, Store

KEYS = torch.arange(1000, 1600)
AT_ONCE = 256


def filled(folder: Path, views: dict[int, int], dtype: torch.dtype = torch.bfloat16) -> Store:
    store = Store(folder, KEYS, views)
    for view in views:
        for part in torch.arange(len(KEYS)).split(AT_ONCE):
            rows = (KEYS[part, None] * 10 + view).to(dtype).expand(-1, 3)
            store.write(part, torch.full_like(part, view), rows)
    store.open()
    return store


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("in_memory", [2**26, 0])
def test_rows_come_back_by_image_and_view(
    tmp_path: Path, dtype: torch.dtype, in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_TABLE_BYTES", in_memory)
    store = filled(tmp_path, {0: 0, 3: 77, MIRRORED: -1}, dtype)
    index, view = torch.tensor([599, 0, 256, 7, 8]), torch.tensor([3, 0, 3, 0, MIRRORED])
    rows = store.fetch(index, view)
    assert rows.dtype == dtype
    assert torch.equal(rows[:, 0], (KEYS[index] * 10 + view).to(dtype))
    assert torch.equal(store.fetch(index), store.fetch(index, torch.zeros_like(view)))
    with pytest.raises(IndexError):
        Store(tmp_path, torch.arange(999, 1600), {0: 0}).fetch(torch.tensor([1, 0]))


def test_runs_that_write_the_same_rows_at_once_leave_them_whole(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        stores = list(pool.map(lambda _: filled(tmp_path, {0: 0}), range(12)))
    for store in stores:
        assert torch.equal(store.fetch(torch.arange(600))[:, 0], (KEYS * 10).to(torch.bfloat16))
    assert [file.suffix for file in tmp_path.iterdir()] == [".safetensors"] * 3


def test_another_catalogue_and_other_numbers_of_views_share_the_rows(tmp_path: Path) -> None:
    filled(tmp_path, {1: 77})
    fewer = Store(tmp_path, KEYS.flip(0)[1::2], {5: 77, 6: 78})
    everything = fewer.image_keys.argsort()
    assert fewer.missing(everything, [5]) == []
    assert len(fewer.missing(everything, [6])) == 300
    assert fewer.fetch(torch.tensor([0]), torch.tensor([5]))[0, 0] == torch.tensor(1598 * 10 + 1).bfloat16()


def test_the_same_content_twice_is_one_row(tmp_path: Path) -> None:
    keys = torch.tensor([5, 9, 5, 5])
    store = Store(tmp_path, keys, {0: 0})
    missing = store.missing(torch.arange(4).numpy(), [0])
    assert [index for index, _ in missing] == [0, 1]
    for position in (0, 1):
        store.write(torch.tensor([position]), torch.tensor([0]), torch.tensor([[position + 1.0]]))
    store.open()
    assert store.missing(torch.arange(4).numpy(), [0]) == []
    assert store.fetch(torch.tensor([3, 1, 2]), torch.tensor([0, 0, 0])).flatten().tolist() == [1.0, 2.0, 1.0]


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "text"])
def test_a_damaged_file_is_dropped_with_one_warning_and_only_its_rows_are_missing(tmp_path: Path, damage: str) -> None:
    filled(tmp_path, {0: 0})
    file = sorted(tmp_path.glob("*.safetensors"))[0]
    content = bytearray(file.read_bytes())
    content[-1] ^= 255
    damaged = {"cut": content[: len(content) // 2], "flipped": content, "emptied": b"", "text": b"no tensors at all"}
    file.write_bytes(damaged[damage])
    with pytest.warns(UserWarning, match="its rows are computed again") as caught:
        store = Store(tmp_path, KEYS, {0: 0})
    assert len(caught) == 1
    missing = len(store.missing(torch.arange(len(KEYS)).numpy(), [0]))
    assert 0 < missing < len(KEYS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.open()


def test_files_that_cannot_be_opened_now_are_not_taken_for_damaged(tmp_path: Path) -> None:
    filled(tmp_path, {0: 0})
    files = sorted(tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened[0] + 20, limits[1]))
    try:
        with suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        os.close(opened.pop())
        with pytest.raises(OSError, match=r"cannot open .*Too many open files"):
            Store(tmp_path, KEYS, {0: 0})
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert sorted(tmp_path.iterdir()) == files


def test_a_file_that_nothing_has_touched_is_not_summed_up_to_be_opened(tmp_path: Path) -> None:
    filled(tmp_path, {0: 0})
    file = sorted(tmp_path.glob("*.safetensors"))[0]
    written = file.stat().st_mtime_ns
    content = bytearray(file.read_bytes())
    content[content.index(b'"crc32":"') + 9] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(written, written))
    assert Store(tmp_path, KEYS, {0: 0}).missing(torch.arange(len(KEYS)).numpy(), [0]) == []


@pytest.mark.parametrize("in_memory", [2**26, 0])
def test_fetching_copies_rows_of_any_shape_in_the_asked_order(
    tmp_path: Path, in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_TABLE_BYTES", in_memory)
    images = torch.randint(256, (7, 5, 4, 3), dtype=torch.uint8)
    store = Store(tmp_path, torch.arange(7), {0: 0})
    for part in torch.arange(7).split(3):
        store.write(part, torch.zeros_like(part), images[part])
    store.open()
    index = torch.tensor([6, 0, 3, 6])
    fetched = store.fetch(index)
    assert torch.equal(fetched, images[index])
    fetched.zero_()
    assert torch.equal(store.fetch(index), images[index])


def test_what_a_killed_process_left_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "0123.part").write_bytes(b"half")
    store = filled(tmp_path, {0: 0})
    assert store.missing(torch.arange(len(KEYS)).numpy(), [0]) == []


def test_a_copied_file_is_summed_up_and_used(tmp_path: Path) -> None:
    filled(tmp_path, {0: 0})
    for file in tmp_path.glob("*.safetensors"):
        os.utime(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Store(tmp_path, KEYS, {0: 0}).missing(torch.arange(len(KEYS)).numpy(), [0]) == []
