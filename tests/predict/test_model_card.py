import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from kth_lightning import Predictor
from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.predict.model_card import model_card

pytestmark = pytest.mark.slow


def export(checkpoint: Path, output: Path) -> ModelCard:
    main(["export", "--ckpt_path", str(checkpoint), "--output", str(output)])
    return ModelCard.load(output.with_name(f"{output.name}.md"))


@pytest.fixture(scope="module")
def exported(tiny_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("exported") / "animals.onnx"
    export(tiny_run.best_checkpoint, output)
    return output


def test_the_fields_are_hugging_faces_and_hold_the_runs_figures(exported: Path, tiny_run: RunFolder) -> None:
    card = ModelCard.load(exported.with_name("animals.onnx.md"))
    assert card.data.pipeline_tag == "image-classification"
    assert (card.data.library_name, card.data.license, card.data.model_name) == ("onnx", "other", "animals")
    figures = {result.metric_type: result.metric_value for result in card.data.eval_results}
    test = tiny_run.read_metrics()["test"]
    assert figures["accuracy"] == pytest.approx(test["acc"]["value"], abs=1e-4)
    assert figures["cross_entropy"] == pytest.approx(test["loss"]["value"], abs=1e-4)
    assert {result.dataset_split for result in card.data.eval_results} == {"test"}


def test_the_text_tells_data_recipe_figures_with_intervals_and_limits(exported: Path, tiny_run: RunFolder) -> None:
    card = ModelCard.load(exported.with_name("animals.onnx.md"))
    test = tiny_run.read_metrics()["test"]
    (row,) = [line for line in card.text.splitlines() if line.startswith("| accuracy")]
    cells = [float(cell) for cell in row.strip("|").split("|")[1:]]
    assert cells == pytest.approx([test["acc"][key] for key in ("value", "low", "high")], abs=1e-3)
    for part in (
        "42 images to train on, 14 to 14 a class",
        "9 to test",
        "optimizer ArticleRMSprop",
        "seed 0",
        "32 x 32",
    ):
        assert part in card.text
    for heading in ("# animals", "## Use", "## Figures", "## Data", "## Recipe", "## Limits", "## Licences"):
        assert heading in card.text.splitlines()
    assert str(yaml.safe_load(tiny_run.config.read_text())["data"]["root"]) not in card.content


def test_figures_of_images_that_are_not_new_are_not_called_new(tiny_run: RunFolder, tmp_path: Path) -> None:
    def card(leakage: dict[str, object] | None) -> str:
        run = RunFolder(tmp_path / "run")
        shutil.copytree(tiny_run.path, run.path, dirs_exist_ok=True)
        run.write_metrics(tiny_run.read_metrics() | {"leakage": leakage})
        return model_card(Path("a.onnx"), Predictor(run.best_checkpoint), run, "no image", 0.0)

    assert "which nothing was trained on or chosen by" in card(None)
    told = card({"source": "/home/me/runs/before/best.ckpt", "images": 9, "trained": 4, "chosen": 0})
    assert "nothing was trained on" not in told
    assert "4 of the 9 test images" in told
    assert "/home/me" not in told


def test_class_names_are_shown_as_they_are(exported: Path, tiny_run: RunFolder) -> None:
    predictor = Predictor(tiny_run.best_checkpoint)
    predictor.class_names[:] = ["$a_b$", "two\nlines", "<b>*"]
    assert r"in this order: \$a\_b\$, two lines, \<b\>\*." in model_card(exported, predictor, tiny_run, "no image", 0.0)


@pytest.mark.parametrize("name", ["animals.onnx", "animals.pt2"])
def test_the_lines_that_it_gives_for_use_run(
    name: str,
    tiny_run: RunFolder,
    exported: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    if name == "animals.onnx":
        card = ModelCard.load(exported.with_name("animals.onnx.md"))
        shutil.copy(exported, tmp_path)
    else:
        card = export(tiny_run.best_checkpoint, tmp_path / name)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.jpg")
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    exec(code, {})
    label, probability, *novelty = capsys.readouterr().out.split()
    prediction = Predictor(tiny_run.best_checkpoint, "cpu")(np.asarray(Image.open("image.jpg")))
    assert label == prediction.label
    assert float(probability) == pytest.approx(prediction.probability, abs=1e-4)
    assert len(novelty) == (name == "animals.onnx")
    assert all(float(item) == pytest.approx(prediction.novelty, abs=0.05) for item in novelty)


def test_without_the_run_folder_it_says_that_the_figures_are_not_known(tiny_run: RunFolder, tmp_path: Path) -> None:
    lone = shutil.copy(tiny_run.best_checkpoint, tmp_path / "best.ckpt")
    card = export(lone, tmp_path / "lone.pt2")
    assert "Not known here" in card.text.partition("## Figures")[2].partition("## Data")[0]
    assert not card.data.eval_results
    assert card.data.library_name == "pytorch"
