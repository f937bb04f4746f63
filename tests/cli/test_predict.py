import csv
import hashlib
import json
import os
import re
import shutil
import signal
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from kth_lightning import Predictor
from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.predict.prediction_file import PredictionFile


def predict(run: RunFolder, output: Path, *argv: object) -> list[str]:
    flags = ["--ckpt_path", str(run.best_checkpoint), "--output", str(output), "--accelerator", "cpu"]
    return ["predict", *map(str, argv), *flags]


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def refusal(capsys: pytest.CaptureFixture, args: list[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_every_image_gets_a_row_in_order_and_a_bad_one_its_reason(
    tiny_run: RunFolder, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    bad = tmp_path / 'an "odd", näme.jpg'
    bad.write_text("no image")
    main(predict(tiny_run, tmp_path / "out.csv", bad, images / "class0", images / "class1" / "00?.png", "--top_k", 2))
    table = rows(tmp_path / "out.csv")
    files = [*sorted((images / "class0").rglob("*.png")), *sorted((images / "class1").glob("00?.png"))]
    assert [row["path"] for row in table] == [str(bad), *map(str, files)]
    assert list(table[0]) == ["path", "label", "probability", "label_2", "probability_2", "novelty", "run", "error"]
    run = hashlib.sha256(tiny_run.best_checkpoint.read_bytes()).hexdigest()[:16]
    assert list(table[0].values())[1:-1] == [*[""] * 5, run]
    assert all(row["run"] == run for row in table)
    assert table[0]["error"].startswith("unreadable")
    for row, prediction in zip(table[1:], Predictor(tiny_run.best_checkpoint, "cpu")(files), strict=True):
        assert (row["label"], row["label_2"]) == (prediction.top_k[0][0], prediction.top_k[1][0])
        assert float(row["probability"]) == pytest.approx(prediction.probability, abs=1e-5)
        assert float(row["novelty"]) == pytest.approx(prediction.novelty, abs=0.05)
        assert row["error"] == ""
    summary = capsys.readouterr().out
    assert f"{len(files)} of {len(files) + 1} images classified, 1 could not be read" in summary
    assert {file.name for file in tmp_path.iterdir()} == {bad.name, "out.csv"}


def test_parquet_holds_the_same_as_csv_in_columns_of_their_kind(
    tiny_run: RunFolder, images: Path, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "bad.png").write_text("no image")
    for name in ("out.csv", "out.parquet"):
        flags = ["--top_k", 2, "--coverage", 0.9]
        main(predict(tiny_run, tmp_path / name, images, tmp_path / "bad.png", *flags))
    table = parquet.read_table(tmp_path / "out.parquet")
    assert {str(table.schema.field(name).type) for name in ("probability", "probability_2", "novelty")} == {"double"}
    for row, expected in zip(table.to_pylist(), rows(tmp_path / "out.csv"), strict=True):
        assert row.keys() == expected.keys()
        for name, cell in expected.items():
            value = row[name]
            if name == "set":
                assert " | ".join(value or []) == cell
            else:
                assert ("" if value is None else str(value)) == cell
    assert {file.name for file in tmp_path.iterdir()} == {"bad.png", "out.csv", "out.parquet"}


def test_json_lines_hold_the_same_as_csv(tiny_run: RunFolder, images: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no image")
    for name in ("new/out.csv", "new/out.jsonl"):
        main(predict(tiny_run, tmp_path / name, images, tmp_path / "bad.png", "--top_k", 99, "--batch_size", 7))
    lines = [json.loads(line) for line in (tmp_path / "new" / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert isinstance(lines[0]["probability_3"], float)
    assert lines[-1]["label"] is None
    as_text = [{key: "" if value is None else str(value) for key, value in line.items()} for line in lines]
    assert as_text == rows(tmp_path / "new" / "out.csv")


def interrupt(command: list[str], folder: Path) -> None:
    """Press Ctrl-C when some rows have been written."""

    def press() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and sum(file.stat().st_size for file in folder.glob(".out*")) < 20_000:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    # Where the tests run in the background, the shell has Ctrl-C ignored.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=press).start()
    try:
        with pytest.raises(SystemExit) as stopped:
            main(command)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert stopped.value.code == 130


def many(images: Path, folder: Path, copies: int) -> Path:
    """Put copies of a folder of images into another one."""
    for number in range(copies):
        shutil.copytree(images, folder / f"{number:03}", copy_function=os.link)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_interrupted_command_leaves_no_table_and_goes_on_when_repeated(
    tiny_run: RunFolder,
    images: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    capsys: pytest.CaptureFixture,
) -> None:
    folder = many(images, tmp_path_factory.mktemp("many"), 40)
    command = predict(tiny_run, tmp_path / f"out.{kind}", folder, "--batch_size", 4)
    interrupt(command, tmp_path)
    (part,) = tmp_path.iterdir()
    assert part.name.startswith(f".out.{kind}.")
    kept = part.read_bytes()
    part.write_bytes(kept[:-9])  # as a power cut leaves it, in the middle of a row

    main(command)
    (table,) = tmp_path.iterdir()
    whole = table.read_bytes()
    assert whole.startswith(kept[:-9])
    printed, errors = capsys.readouterr()
    assert "2400 of 2400 images classified;" in printed
    assert re.search(r"^\d+ rows are those of an interrupted command$", errors, re.MULTILINE)
    main(command)
    assert len(whole.splitlines()) == len(table.read_bytes().splitlines()) == 2400 + (kind == "csv")


def test_a_table_that_another_command_is_writing_is_left_to_it(
    tiny_run: RunFolder, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "out.csv"
    with closing(PredictionFile(output, "another", top_k=1)):
        assert "another command is writing" in refusal(capsys, predict(tiny_run, output, images / "class1"))
        main(predict(tiny_run, tmp_path / "other.csv", images / "class1"))
    main(predict(tiny_run, output, images / "class1"))
    assert rows(output) == rows(tmp_path / "other.csv")
    assert {file.name for file in tmp_path.iterdir()} == {"out.csv", "other.csv"}


def test_the_users_folder_may_be_a_tilde(
    tiny_run: RunFolder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tiny_run.best_checkpoint.parent))
    output = tmp_path / "out.csv"
    main(
        ["predict", str(images / "class1"), "--ckpt_path=~/best.ckpt", "--output", str(output), "--accelerator", "cpu"]
    )
    assert rows(output)


def test_paths_start_from_the_folder_in_which_it_is_given_as_a_dot(
    tiny_run: RunFolder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images)  # so that they are those of a table that lies there, as docs/camera-traps.md says
    main(predict(tiny_run, tmp_path / "out.csv", "."))
    below = sorted(file.relative_to(images).as_posix() for file in images.rglob("*.png"))
    assert [row["path"] for row in rows(tmp_path / "out.csv")] == below


@pytest.mark.parametrize("change", ["paths", "content", "settings"])
def test_rows_of_other_images_or_settings_are_not_gone_on_with(
    tiny_run: RunFolder, images: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, change: str
) -> None:
    folder = many(images / "class0", tmp_path_factory.mktemp("many"), 100)
    interrupt(predict(tiny_run, tmp_path / "out.csv", folder, "--batch_size", "4"), tmp_path)
    if change == "content":
        file = next((folder / "000").iterdir())
        file.unlink()
        shutil.copy2(next((images / "class1").iterdir()), file)  # which leaves its time of writing as it was
    path = images / "class1" if change == "paths" else folder / "000"
    for name in ("out.csv", "fresh.csv"):
        main(predict(tiny_run, tmp_path / name, path, "--top_k", "1" if change == "settings" else "3"))
    assert rows(tmp_path / "out.csv") == rows(tmp_path / "fresh.csv")
    assert {file.name for file in tmp_path.iterdir()} == {"fresh.csv", "out.csv"}


def test_bad_settings_are_refused_in_a_sentence_before_any_work(
    tiny_run: RunFolder, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output, folder = tmp_path / "out.csv", tmp_path / "folder.csv"
    folder.mkdir()
    (tmp_path / "file").write_text("")
    checkpoint = tmp_path / "half.ckpt"
    checkpoint.write_bytes(tiny_run.best_checkpoint.read_bytes()[:5000])
    for args, part in [
        (predict(tiny_run, output, images / "none"), "there is no file or folder"),
        (predict(tiny_run, output, folder), "has no image in it"),
        (predict(tiny_run, tmp_path / "out.txt", images), "does not end in .csv, .jsonl or .parquet"),
        (predict(tiny_run, folder, images), "does not end in .csv, .jsonl or .parquet"),
        (predict(tiny_run, tmp_path / "file" / "out.csv", images), "cannot write"),
        (predict(tiny_run, output, images, "--top_k", 0), "--top_k is at least 1"),
        (predict(tiny_run, output, images, "--batch_size", 0), "--batch_size is at least 1"),
        ([*predict(tiny_run, output, images), "--ckpt_path", str(checkpoint)], "is damaged"),
        ([*predict(tiny_run, output, images), "--ckpt_path", str(images / "class0/000.png")], "is not a checkpoint"),
        ([*predict(tiny_run, output, images), "--ckpt_path", str(tmp_path / "none.ckpt")], "there is no file"),
        ([*predict(tiny_run, output, images), "--accelerator", "gpu", "--devices", "99"], "--devices: 99 GPUs"),
        ([*predict(tiny_run, output, images), "--devices", "2"], "--devices 2: the CPU is one device"),
        (["predict", str(images)], "ckpt_path"),
    ]:
        message = refusal(capsys, args)
        assert message.startswith("error: ")
        assert part in message
    assert {file.name for file in tmp_path.iterdir()} == {"folder.csv", "file", "half.ckpt"}
