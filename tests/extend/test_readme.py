import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from kth_lightning.testing import check_classifier

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_lines_of_python_train_test_and_predict(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    root = make_folder(tmp_path / "images", images=12)
    (code,) = re.findall(r"```python\n(from lightning import Trainer.*?)```", README, re.DOTALL)
    for given, small in (
        ("path/to/images/cat/1.jpg", str(root / "class1/000.png")),
        ("path/to/images", str(root)),
        ("image_size=260", "image_size=64"),
        ("max_epochs=30", "max_epochs=2"),
        ('backbone="tf_efficientnet_lite2"', 'backbone="resnet10t", weights="none"'),
    ):
        assert given in code
        code = code.replace(given, small)
    (tmp_path / "lines.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("lines.py")
    assert capsys.readouterr().out.splitlines()[-1] in ("class0", "class1", "class2")


def test_the_network_of_the_page_keeps_its_promises(mine: Callable[[str], None]) -> None:
    (code,) = re.findall(r"```python\n(import torch.*?)```", README, re.DOTALL)
    mine(code)
    import mine as module  # type: ignore[import-not-found]

    check_classifier(module.MyNet)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"", text)
    files = [link or picture for link, picture in targets if not (link or picture).startswith("http")]
    assert not [name for name in files if not (page.parent / name).exists()]
