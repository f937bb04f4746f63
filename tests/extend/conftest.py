import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder

STOP = """
import os

import lightning as L


class Stop(L.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if str(trainer.current_epoch) == os.environ.get("STOP_BEFORE_EPOCH"):
            raise KeyboardInterrupt
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Write somebody's own module, which commands then find as `mine`."""
    folder = tmp_path / "somebody"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def write(code: str) -> None:
        (folder / "mine.py").write_text(dedent(code), encoding="utf-8")
        sys.modules.pop("mine", None)
        importlib.invalidate_caches()

    yield write
    sys.modules.pop("mine", None)


@pytest.fixture(scope="session")
def tiny_fit() -> Callable[..., list[str]]:
    """Return a command that trains the smallest CNN for two epochs, the same bits every time."""

    def command(run: Path, *flags: object) -> list[str]:
        args = ["fit", "--model", "BenchmarkCNN", "--model.filters", "[4,8]", "--model.block_dropout", "[0,0]"]
        args += ["--data.image_size", "32", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"]
        args += ["--trainer.devices", "1", "--trainer.precision", "32", "--run_dir", str(run)]
        return [*args, *map(str, flags)]

    return command


@pytest.fixture
def whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., None]:
    """Fit, interrupted after an epoch; go on; then give the run to every command that reads one."""
    folder = tmp_path / "interruption"
    folder.mkdir()
    (folder / "stop.py").write_text(STOP, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)

    def go(fit: list[str], run: RunFolder, *checkpoint_flags: str) -> None:
        fit = [*fit, "--trainer.callbacks+", "stop.Stop"]
        monkeypatch.setenv("STOP_BEFORE_EPOCH", "1")
        with pytest.raises(SystemExit, match="130"):
            main(fit)
        assert not run.finished
        monkeypatch.delenv("STOP_BEFORE_EPOCH")
        main(fit)
        assert run.finished
        capsys.readouterr()
        main(fit)
        assert "is finished" in "".join(capsys.readouterr())
        test = ["test", "--config", str(run.config), "--ckpt_path", str(run.best_checkpoint)]
        main([*test, "--run_dir", str(tmp_path / "evaluation")])
        accuracy = run.read_metrics()["test"]["acc"]["value"]
        assert f"accuracy: {100 * accuracy:.1f} % of " in capsys.readouterr().out
        main(["report", str(run.path)])
        explain = ["explain", "--test_set", "true", "--ckpt_path", str(run.best_checkpoint), *checkpoint_flags]
        main([*explain, "--output", str(tmp_path / "o")])
        assert "images explained" in capsys.readouterr().out

    return go
