from pathlib import Path

import pytest
from PIL import Image

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder

pytestmark = pytest.mark.slow

SMALL = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32"]
SMALL += ["--trainer.max_epochs", "1", "--data.image_size", "64"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("sample") / "run"
    main(["fit", "--model", "BenchmarkCNN", "--data.sample_size", "108", "--run_dir", str(folder), *SMALL])
    return RunFolder(folder)


def test_a_run_shows_its_most_confident_mistakes_with_their_maps(run: RunFolder) -> None:
    predictions, mistakes = run.read_predictions(), run.read_mistakes()
    wrong = {
        path: row.max()
        for path, label, row in zip(predictions.paths, predictions.labels, predictions.probabilities, strict=True)
        if row.argmax() != label
    }
    most = sorted(wrong.values(), reverse=True)[:24]
    assert len(mistakes) > 0
    assert [mistake.confidence for mistake in mistakes] == pytest.approx(most)
    for mistake in mistakes:
        assert mistake.confidence == pytest.approx(wrong[mistake.path])
        assert mistake.label != mistake.prediction
        with Image.open(run.mistakes / mistake.image) as image, Image.open(run.mistakes / mistake.map) as drawn:
            assert image.size == drawn.size
            assert image.tobytes() != drawn.tobytes()
    assert "data:image/jpeg" in run.report.read_text()


def test_the_figures_of_a_run_are_written_before_any_picture(run: RunFolder) -> None:
    written = max(file.stat().st_mtime_ns for file in (run.predictions, run.confusion, run.metrics))
    pictures = [*run.figures.iterdir(), *run.mistakes.iterdir(), run.report]
    assert written <= min(file.stat().st_mtime_ns for file in pictures)


def test_maps_are_measured_on_the_test_images_that_have_masks(run: RunFolder) -> None:
    located, rows = run.read_metrics()["test"]["localisation"], run.read_localisation()
    assert located["n"] == run.read_metrics()["test"]["n"] == sum(row["n"] for row in rows)
    assert located["pointing"]["low"] <= located["pointing"]["value"] <= located["pointing"]["high"]
    weighed = sum(row["n"] * row["iou_mask"] for row in rows) / located["n"]
    assert weighed == pytest.approx(located["iou_mask"]["value"])


def test_a_report_that_was_lost_is_written_again(run: RunFolder) -> None:
    run.report.unlink()
    main(["fit", "--model", "BenchmarkCNN", "--data.sample_size", "108", "--run_dir", str(run.path), *SMALL])
    assert run.report.exists()


def test_images_without_masks_give_no_localisation(images: Path, tmp_path: Path) -> None:
    main(["fit", "--model", "BenchmarkCNN", "--data.root", str(images), "--run_dir", str(tmp_path), *SMALL])
    run = RunFolder(tmp_path)
    assert "localisation" not in run.read_metrics()["test"]
    assert run.read_localisation() == []
