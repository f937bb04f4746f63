"""A test set of one image: its kappa and all intervals but that of the accuracy are undefined."""

from collections.abc import Callable
from pathlib import Path

import pytest
from corpus import save, tiny_fit
from huggingface_hub import ModelCard

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.report.table import Part, write_table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("one")
    for position, (part, names, images) in enumerate(
        (("train", "cat dog", 4), ("val", "cat dog", 2), ("test", "cat", 1))
    ):
        for place, name in enumerate(names.split()):
            for number in range(images):
                save(folder / f"root/{part}/{name}/{number}.png", 100 * position + 10 * place + number)
    main([*tiny_fit(folder / "root"), "--run_dir", str(folder / "compared/benchmark")])
    return RunFolder(folder / "compared/benchmark")


@pytest.mark.slow
def test_undefined_figures_are_null_and_a_dash_in_the_table(run: RunFolder) -> None:
    test = run.read_metrics()["test"]
    assert test["n"] == 1
    assert test["kappa"]["value"] is None
    row = write_table([Part("benchmark", [run])], run.path.parent, reference=False).splitlines()[2]
    assert [cell.strip() for cell in row.split("|")][5] == "–"
    assert {file.stem for file in run.figures.iterdir()} == {"confusion", "curves", "reliability", "risk_coverage"}
    main(["report", str(run.path)])
    main(["report", str(run.path.parent)])


def test_a_model_card_leaves_undefined_figures_out(run: RunFolder, tmp_path: Path) -> None:
    main(["export", "--ckpt_path", str(run.best_checkpoint), "--output", str(tmp_path / "one.pt2")])
    assert {file.name for file in tmp_path.iterdir()} == {"one.pt2", "one.pt2.md"}
    card = ModelCard.load(tmp_path / "one.pt2.md")
    named = {result.metric_type for result in card.data.eval_results}
    assert named == {"accuracy", "recall", "cross_entropy", "expected_calibration_error"}
    assert "kappa" not in card.text


def test_the_test_image_is_explained(run: RunFolder, tmp_path: Path) -> None:
    main(["explain", "--test_set", "true", "--ckpt_path", str(run.best_checkpoint), "--output", str(tmp_path)])
    assert [file.name for file in tmp_path.rglob("*.png")] == ["0.png.map.png"]


def test_a_file_is_not_written_without_its_card(run: RunFolder, tmp_path: Path, refusal: Callable[..., str]) -> None:
    (tmp_path / "one.pt2.md").mkdir()
    line = refusal("export", "--ckpt_path", run.best_checkpoint, "--output", tmp_path / "one.pt2")
    assert "the model card cannot be written" in line
    run.metrics.write_text('{"test": {}}')
    line = refusal("export", "--ckpt_path", run.best_checkpoint, "--output", tmp_path / "two.pt2")
    assert f"{run.metrics} has no parameters, parameters_trained, epochs" in line
    assert [file.name for file in tmp_path.iterdir()] == ["one.pt2.md"]
