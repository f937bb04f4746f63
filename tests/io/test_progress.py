import gc
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from kth_lightning.cli.main import main
from kth_lightning.io import progress
from kth_lightning.io.progress import Progress, stages
from kth_lightning.io.terminal import print_rank_zero

BAR = """
import time
from kth_lightning.io.progress import Progress, stages
from kth_lightning.io.terminal import print_rank_zero
with stages("reading", "features"):
    for number in Progress(range(20), "features", "training images"):
        time.sleep(0.05)
        if number == 15:
            print_rank_zero("a sentence")
"""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Have time pass where it is told to."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])

    def go_on(seconds: float) -> None:
        now[0] += seconds

    return go_on


def test_a_log_file_gets_a_line_every_ten_seconds_and_no_carriage_returns(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture
) -> None:
    with stages("reading images", "features"):
        for number in Progress(range(100), "features", "training images"):
            clock(0.25)
            if number == 50:
                print_rank_zero("a sentence")
    lines = capsys.readouterr().err
    assert "\r" not in lines
    assert lines.splitlines() == [
        "2/2 features (training images): 40 of 100 images, 00:15 left",
        "a sentence",
        "2/2 features (training images): 80 of 100 images, 00:05 left",
        "2/2 features (training images): 100 images in 25 s",
    ]


def test_what_takes_less_leaves_no_line(clock: Callable[[float], None], capsys: pytest.CaptureFixture) -> None:
    for _ in Progress(range(30), "features"):
        clock(0.25)
    assert not capsys.readouterr().err


def test_an_unknown_number_is_counted(clock: Callable[[float], None], capsys: pytest.CaptureFixture) -> None:
    for _ in Progress(iter(range(50)), "listing"):
        clock(0.25)
    assert capsys.readouterr().err.splitlines() == ["listing: 40 images, 00:10", "listing: 50 images in 12 s"]


def test_ctrl_c_as_a_bar_is_made_leaves_no_second_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Images:
        def __len__(self) -> int:
            raise KeyboardInterrupt

    noted: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", noted.append)
    with pytest.raises(KeyboardInterrupt):
        Progress(Images(), "features")  # type: ignore[arg-type]
    gc.collect()
    assert not noted


def test_a_terminal_gets_a_bar_with_name_place_and_time_that_goes_away() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with subprocess.Popen([sys.executable, "-c", BAR], stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                block = os.read(ours, 4096)
            except OSError:  # what Linux says at the end
                break
            if not block:
                break
            shown += block
        assert process.wait(timeout=60) == 0
    os.close(ours)
    text = shown.decode()
    assert re.search(r"\r2/2 features \(training images\) \|.{20}\| 1\d of 20 images, 00:0\d left", text)
    assert "a sentence" in text
    *_, last = text.rstrip("\r").split("\r")
    assert not last.strip()


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True], ids=["first", "again"])
def test_a_run_shows_each_stage_in_its_place(
    cached: bool,
    images: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    cache = tmp_path_factory.getbasetemp() / "progress-cache"
    command = ["fit", "--model", "FeatureHead", "--model.backbone", "resnet10t", "--model.weights", "none"]
    command += ["--data.root", str(images), "--data.cache_dir", str(cache), "--data.image_size", "32"]
    command += ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]
    main([*command, "--run_dir", str(tmp_path_factory.mktemp("run") / "run")])
    printed = capsys.readouterr().err
    assert "\r" not in printed
    places = list(dict.fromkeys(re.findall(r"^(\d/\d [a-z ]+\b)", printed, re.MULTILINE)))
    every = ["1/5 reading images", "2/5 resizing images", "3/5 features", "4/5 training", "5/5 testing"]
    assert places == ([place for place in every if place.startswith("4")] if cached else every)
    ends = re.findall(r"^(\d/\d .*): [\d.]+k? \w+ in \d+ s$", printed, re.MULTILINE)
    assert len(ends) == len(set(ends))
