import gzip
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from corpus import save, snapshot, tiny_fit
from safetensors.torch import load_file

from kth_lightning.callbacks import feature_cache
from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.walk import MARK

Refusal = Callable[..., str]


def mount(*argv: str) -> bool:
    return subprocess.run(["mount", *argv], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of two megabytes, where that is permitted."""
    position = tmp_path / "disk"
    position.mkdir()
    if os.name != "posix" or not mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", str(position)):
        pytest.skip("no disk can be mounted here")
    yield position
    subprocess.run(["umount", "--lazy", str(position)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Fill a disk up but for some bytes; deleting the file that is returned makes room again."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            stream.truncate(stream.tell() - leave)
    return filler


def lock(disk: Path) -> None:
    assert mount("-o", "remount,ro", str(disk))


def predict(run: RunFolder, images: Path, output: Path) -> list[str]:
    return ["predict", str(images), "--ckpt_path", str(run.best_checkpoint), "--output", str(output)]


def test_images_on_a_read_only_disk_can_be_used(disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for position, name in enumerate(("cat", "dog")):
        save(disk / name / "0.png", position)
    lock(disk)
    main(["prepare", "--data.root", str(disk), "--data.cache_dir", str(tmp_path / "cache")])
    assert "2 of 2 files usable in 2 classes" in capsys.readouterr().out


@pytest.mark.parametrize("state", ["full", "read-only"])
@pytest.mark.parametrize("folder", ["", "new/cache"])
def test_a_cache_on_a_disk_that_takes_nothing_names_its_flag(
    refusal: Refusal, disk: Path, root: Path, state: str, folder: str
) -> None:
    kept = snapshot(root)
    if state == "full":
        shutil.copytree(root, disk / "images")
        fill(disk)
        # tmpfs makes folders and empty files on a full disk; what is written into them finds no room.
    else:
        lock(disk)
    line = refusal("prepare", "--data.root", root, "--data.cache_dir", disk / folder)
    assert str(disk) in line
    assert {"full": "No space left on device", "read-only": "Read-only file system"}[state] in line
    assert "name another folder with --data.cache_dir" in line
    assert snapshot(root) == kept


def test_a_command_goes_on_when_there_is_room_again(
    refusal: Refusal, disk: Path, root: Path, capsys: pytest.CaptureFixture
) -> None:
    filler = fill(disk)
    command = ["prepare", "--data.root", str(root), "--data.cache_dir", str(disk / "cache")]
    refusal(*command)
    assert not [*(disk / "cache").rglob("*.csv")]
    filler.unlink()
    main(command)
    assert "6 of 6 files usable in 2 classes" in capsys.readouterr().out


def test_an_archive_that_does_not_fit_on_the_disk_leaves_nothing_half_unpacked(
    refusal: Refusal, disk: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "animal_database.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for number in range(8):
            info = tarfile.TarInfo(f"animal_database/cat/original/{number}.png")
            info.size = 500_000
            tar.addfile(info, io.BytesIO(bytes(500_000)))
    assert len(gzip.decompress(archive.read_bytes())) > 2_000_000
    line = refusal("prepare", "--data.archive", archive, "--data.cache_dir", disk / "cache")
    assert "No space left on device" in line
    assert "--data.cache_dir" in line
    assert {path.suffix for path in (disk / "cache").rglob("*") if path.is_file() and path.name != MARK} == {".lock"}


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_store_of_pixels_that_does_not_fit_is_said_and_not_left_half_written(
    refusal: Refusal, disk: Path, root: Path, tmp_path: Path, state: str
) -> None:
    main(["prepare", "--data.root", str(root), "--data.cache_dir", str(disk)])
    kept = snapshot(tmp_path)
    filler = None
    if state == "full":
        filler = fill(disk, leave=8192)
    else:
        lock(disk)
    line = refusal(*tiny_fit(root), "--data.cache_dir", disk, "--run_dir", tmp_path / "run")
    assert str(disk) in line or "while writing" in line
    if filler:
        assert "the disk is full" in line
        filler.unlink()
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    left = {path: digest for path, digest in snapshot(tmp_path).items() if not path.endswith(".lock")}
    assert left == {path: digest for path, digest in kept.items() if not path.endswith(".lock")}


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_run_folder_on_a_disk_that_takes_nothing_is_one_line(
    refusal: Refusal, disk: Path, images: Path, state: str
) -> None:
    kept = snapshot(images)
    fill(disk) if state == "full" else lock(disk)
    line = refusal(*tiny_fit(images), "--run_dir", disk / "run")
    assert ("the disk is full" if state == "full" else "Read-only file system") in line
    assert snapshot(images) == kept


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_table_of_predictions_that_cannot_be_written_leaves_the_earlier_one(
    refusal: Refusal, tiny_run: RunFolder, root: Path, disk: Path, state: str
) -> None:
    output = disk / "out.csv"
    main(predict(tiny_run, root, output))
    earlier = output.read_bytes()
    filler = fill(disk) if state == "full" else lock(disk)
    line = refusal(*predict(tiny_run, root, output))
    assert ("the disk is full" if state == "full" else "Read-only file system") in line
    assert output.read_bytes() == earlier
    if filler:
        filler.unlink()
        main(predict(tiny_run, root, output))
        assert output.read_bytes() == earlier
        assert [file.name for file in disk.iterdir()] == ["out.csv"]


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_maps_that_cannot_be_written_are_one_line(
    refusal: Refusal, tiny_run: RunFolder, root: Path, disk: Path, state: str
) -> None:
    kept = snapshot(root)
    fill(disk) if state == "full" else lock(disk)
    argv = ["explain", str(root), "--ckpt_path", str(tiny_run.best_checkpoint), "--output", str(disk / "maps")]
    line = refusal(*argv)
    assert ("No space left on device" if state == "full" else "Read-only file system") in line
    assert snapshot(root) == kept


@pytest.mark.slow
def test_maps_for_a_later_run_that_find_no_room_leave_it_to_the_features(
    disk: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "_AT_ONCE", 8)
    flags = ["--data.cache_dir", str(disk), "--run_dir", str(tmp_path / "run"), "--store_maps_before", "1"]
    head = ["fit", "--config", "configs/head.yaml", "--data.root", str(images), "--data.image_size", "64"]
    head += ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.max_epochs", "1"]
    with pytest.warns(UserWarning, match="No space left on device") as caught:
        main([*head, *flags, "--trainer.precision", "32-true"])
    said = [str(warning.message) for warning in caught if "training goes on without" in str(warning.message)]
    assert len(said) == 1, "maps of 32 bits find no room for two parts of the split; said once"
    assert "without the maps of --store_maps_before" in said[0]
    stored = [load_file(file)["rows"] for file in disk.glob("features/*/*.safetensors")]
    assert sum(len(rows) for rows in stored if rows.ndim == 2) == 42 + 18 * 2
