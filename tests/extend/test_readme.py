import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


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
