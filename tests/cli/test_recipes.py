from pathlib import Path

import pytest

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").glob("**/*.yaml") if path.name != "debug.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_every_recipe_runs_on_the_sample(recipe: Path, tmp_path: Path) -> None:
    debug = ["--config", str(ROOT / "configs/debug.yaml"), "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    main(["fit", "--config", str(ROOT / recipe), *debug, "--run_dir", str(tmp_path / "run")])
    metrics = RunFolder(tmp_path / "run").read_metrics()
    assert metrics["epochs"] == 1
    assert metrics["test"]["n"] == 18
