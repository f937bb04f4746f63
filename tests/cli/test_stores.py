from pathlib import Path

import pytest
import torch

from kth_lightning.cli.main import main
from kth_lightning.data.module import ImageData
from kth_lightning.stores.store import Store


@pytest.fixture
def cache(images: Path, tmp_path: Path) -> Path:
    data = ImageData(root=str(images), image_size=64, cache_dir=str(tmp_path))
    data.prepare_data()
    data.setup("fit")
    index = torch.arange(5)
    store = Store(tmp_path / "features" / "some-trunk", data.keys, {0: 0})
    store.write(index, torch.zeros_like(index), torch.ones(5, 8, 2, 2, dtype=torch.bfloat16))
    return tmp_path


def test_stores_are_listed_with_what_they_hold(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["stores", "--cache_dir", str(cache)])
    said = capsys.readouterr().out
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")] for line in said.splitlines()[2:-2]}
    assert set(rows) == {"catalogues", "pixels", "features"}
    number = len(next((cache / "catalogues").glob("*/catalogue.csv")).read_text().splitlines()) - 1
    assert rows["pixels"][3] == f"{number} rows of 64 x 64 x 3 U8"
    assert rows["features"][2:4] == ["some-trunk", "5 rows of 8 x 2 x 2 BF16"]
    assert said.splitlines()[-1].startswith("3 stores, 0.")


def test_damaged_stores_are_called_so(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in cache.glob("*/*/*.safetensors"):
        file.write_bytes(b"nothing of the kind")
    main(["stores", "--cache_dir", str(cache)])
    assert capsys.readouterr().out.count("| damaged ") == 2


def test_a_store_that_was_interrupted_before_its_first_part_holds_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "features" / "some-trunk").mkdir(parents=True)
    main(["stores", "--cache_dir", str(tmp_path)])
    row = capsys.readouterr().out.splitlines()[2]
    assert "| nothing yet " in row
    assert "1970" not in row


def test_what_is_cleared_is_gone_and_the_rest_stays(
    cache: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["stores", "--clear", "pixels", "catalogues", "--cache_dir", str(cache)])
    assert capsys.readouterr().out.startswith("deleted 2 stores, 0.")
    assert not list(cache.glob("pixels/*/*.safetensors"))
    assert list(cache.glob("features/some-trunk/*.safetensors"))
    data = ImageData(root=str(images), image_size=64, cache_dir=str(cache))
    data.prepare_data()
    assert list(cache.glob("pixels/*/*.safetensors"))


def test_a_folder_without_stores_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["stores", "--cache_dir", str(tmp_path / "none")])
    assert capsys.readouterr().out.startswith("0 stores")


def test_an_unknown_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["stores", "--clear", "everything", "--cache_dir", str(tmp_path)])
    assert stopped.value.code == 2
    assert "--clear" in capsys.readouterr().err
