import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from kth_lightning import ImageData
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.testing import check_augmentation, check_classifier, check_source

PAGE = (Path(__file__).parents[2] / "docs" / "extend.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_classes_of_the_page_keep_their_promises(mine: Callable[[str], None], images: Path) -> None:
    mine("\n".join(block for block in blocks("python") if "fit(" not in block))
    import mine as module  # type: ignore[import-not-found]

    check_source(module.MySource(str(images)))
    check_augmentation(module.UpsideDown())
    check_classifier(module.MyNet)


def test_the_objects_of_the_page_are_trained(
    mine: Callable[[str], None], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *parts, lines = blocks("python")
    for given, small in (("DIR", str(images)), ("max_epochs=30", "max_epochs=1")):
        assert given in lines
        lines = lines.replace(given, small)
    mine("\n".join(parts))
    import mine as module

    monkeypatch.chdir(tmp_path)
    exec(lines, vars(module))
    assert RunFolder(tmp_path / "runs/mine").finished
    assert "<mine.UpsideDown()>" in RunFolder(tmp_path / "runs/mine").config.read_text()


def test_the_configuration_of_the_page_is_taken(images: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ImageData, "data")
    (text,) = blocks("yaml")
    options = parser.parse_object(yaml.safe_load(text))
    options.data.root = str(images)
    check_augmentation(parser.instantiate(options).data.augmentation)
