import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning import Trainer

from kth_lightning import FeatureHead, ImageData, Predictor
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.testing import check_classifier

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.slow
def test_the_lines_of_python_train_test_and_predict(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    root = make_folder(tmp_path / "images", images=12)
    (code,) = re.findall(r"```python\n(from lightning import seed_everything.*?)```", README, re.DOTALL)
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
    first = capsys.readouterr().out.splitlines()
    assert RunFolder(tmp_path / "runs/animals").finished
    assert first[-1] in ("class0", "class1", "class2")
    runpy.run_path("lines.py")
    again = capsys.readouterr()
    assert "is finished" in again.err
    assert again.out.splitlines() == first[-2:]


def test_lightnings_own_trainer_trains_and_tests_and_the_predictor_takes_its_checkpoint(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    assert "`Trainer(use_distributed_sampler=False)`" in README
    root = make_folder(tmp_path / "images", images=12)
    data = ImageData(root=str(root), image_size=64)
    model = FeatureHead(3, class_names=data.class_names, image_size=64, backbone="resnet10t", weights="none")
    trainer = Trainer(max_epochs=2, use_distributed_sampler=False, default_root_dir=tmp_path, logger=False)
    trainer.fit(model, data)
    trainer.test(model, data)
    checkpoint = trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]
    assert Predictor(checkpoint)(root / "class1/000.png").label in data.class_names


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
