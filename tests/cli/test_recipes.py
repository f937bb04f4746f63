from pathlib import Path

import pytest
import yaml

from kth_lightning.cli.main import main
from kth_lightning.cli.recipes import find_recipes
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


@pytest.mark.parametrize(
    ("words", "network"),
    [
        (["--config", "head"], "FeatureHead"),
        (["--config=configs/blog/benchmark.yaml"], "BenchmarkCNN"),
        (["--model.dropout", "0.25"], "FeatureHead"),
        (["--model", "FineTuned", "--model.dropout", "0.25"], "FineTuned"),
    ],
)
def test_recipes_are_found_from_any_folder_and_flags_of_a_model_need_none(
    words: list[str], network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "head").mkdir()
    with pytest.raises(SystemExit, match="0"):
        main(["fit", *words, "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["class_path"].endswith(network)
    if "0.25" in words:
        assert config["model"]["init_args"]["dropout"] == 0.25


def test_a_file_of_ones_own_comes_before_a_recipe_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipes(["configs/fast.yaml"], article=False, small=False)[0].file == ROOT / "configs/fast.yaml"
    Path("configs").mkdir()
    Path("configs/fast.yaml").write_text("model: BenchmarkCNN")
    assert find_recipes(["configs/fast.yaml"], article=False, small=False)[0].class_name == "BenchmarkCNN"
