import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "learning-curve.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_lines_of_python_draw_a_curve_on_stored_features(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(tmp_path / "images", images=24)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for given, small in (
        ("path/to/images", str(root)),
        ("image_size=260", "image_size=64"),
        ("max_epochs=30", "max_epochs=1, sizes=4, folds=2"),
        ('backbone="tf_efficientnet_lite2"', 'backbone="resnet10t", weights="none"'),
    ):
        assert given in code
        code = code.replace(given, small)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    outcome = json.loads(Path("runs/curve/learning_curve.json").read_text())
    assert outcome["n"] == 72
    assert len(outcome["sizes"]) == 4
