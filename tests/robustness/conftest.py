import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
from corpus import save, tiny_fit

from kth_lightning.cli.main import main
from kth_lightning.io.csv_text import read_csv
from kth_lightning.io.run_folder import RunFolder

SECONDS = 60


@pytest.fixture(autouse=True)
def _no_case_hangs() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"it hangs: no answer within {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give two classes with three images each."""
    for position, name in enumerate(("cat", "dog")):
        for number in range(3):
            save(tmp_path / f"root/{name}/{number}.png", 10 * position + number)
    return tmp_path / "root"


@pytest.fixture
def prepared(tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[[Path], tuple[str, dict[str, str], list[str]]]:
    """Prepare a folder; give the summary, the reason of every path in audit.csv, and the paths of the usable ones."""

    def prepare(root: Path) -> tuple[str, dict[str, str], list[str]]:
        capsys.readouterr()
        main(["prepare", "--data.root", str(root), "--data.cache_dir", str(tmp_path / "cache")])
        summary = capsys.readouterr().out
        folder = Path(summary.rstrip("\n").rpartition("audit.csv are in ")[2])
        audit, catalogue = (read_csv(folder / f"{name}.csv") for name in ("audit", "catalogue"))
        return summary, {row["path"]: row["reason"] for row in audit}, [row["path"] for row in catalogue]

    return prepare


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, images: Path) -> RunFolder:
    """Train the smallest CNN for a step."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    main([*tiny_fit(images), "--run_dir", str(run)])
    return RunFolder(run)
