import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kth_lightning.cli.main import main
from kth_lightning.errors import InputError
from kth_lightning.evaluation.statistics import summarise
from kth_lightning.io.mistakes_file import Mistake
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.report.page import write_report

NAMES = ["cat", "dog", "emu"]
CONFIG = """# kth_lightning 0.1.0
seed_everything: 0
model:
  class_path: kth_lightning.models.{model}
  init_args:
    backbone: vgg19
    lr: 0.001
data:
  source: {source}
patience: 10
"""


def finished_run(
    folder: Path,
    correct: int = 27,
    *,
    names: list[str] = NAMES,
    model: str = "FeatureHead",
    source: str = "folder",
    images: range = range(30),
    **more: Any,
) -> RunFolder:
    """Write a run that gets the first `correct` of its images right and takes the others for the next class."""
    run = RunFolder(folder)
    labels = np.array(images) % len(names)
    wrong = np.arange(len(images)) >= correct
    predictions = (labels + wrong) % len(names)
    confidence = np.where(wrong, 0.6 + np.arange(len(images)) / 200, 0.9)[:, None]
    others = (1 - confidence) / (len(names) - 1)
    probabilities = np.where(np.arange(len(names)) == predictions[:, None], confidence, others)
    run.write_predictions([f"{names[labels[row]]}/{item}.jpg" for row, item in enumerate(images)], labels, names,
                          probabilities)  # fmt: skip
    for epoch in range(3):
        figures = {f"{part}/{name}": 0.5 + epoch / 10 for part in ("train", "val") for name in ("loss", "acc", "kappa")}
        run.append_history({"epoch": epoch, "seconds": 1.0, "lr": 1e-3} | figures)
    run.config.write_text(CONFIG.format(model=model, source=source), encoding="utf-8")
    costs = {"seconds_per_epoch": 8.9, "best_epoch": 1, "epochs": 3, "parameters_trained": 9747, "seconds_total": 26.0}
    metrics = {"model": model, "test": summarise(labels, probabilities), "device": "abacus", "precision": "bf16-mixed"}
    run.write_metrics(metrics | costs | {"versions": {"torch": "2.11"}, "hashes": {"data": "ab" * 32}} | more)
    return run


def add_mistakes(run: RunFolder) -> None:
    found = run.read_predictions()
    rows = []
    for row in np.flatnonzero(found.probabilities.argmax(1) != found.labels):
        names = f"{row}.jpg", f"{row}-map.jpg"
        run.mistakes.mkdir(exist_ok=True)
        for position, name in enumerate(names):
            Image.new("RGB", (120, 80 + position), (200, 30 * position, 0)).save(run.mistakes / name)
        prediction = found.class_names[found.probabilities[row].argmax()]
        confidence = float(found.probabilities[row].max())
        rows.append(Mistake(found.paths[row], found.class_names[found.labels[row]], prediction, confidence, *names))
    run.write_mistakes(rows)


def add_localisation(run: RunFolder) -> None:
    run.write_localisation(
        [{"class": name, "n": 10, "pointing": 0.9 - position / 10, "iou_mask": 0.4, "iou_box": 0.5}
         for position, name in enumerate(NAMES)]
    )  # fmt: skip
    score = {"value": 0.8, "low": 0.7, "high": 0.9}
    metrics = run.read_metrics()
    metrics["test"]["localisation"] = {"n": 30, "pointing": score, "iou_mask": score, "iou_box": score}
    run.write_metrics(metrics)


class Page(HTMLParser):
    """Take a page apart into what it shows: its text, one line an element, its images and its tables."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.html = file.read_text(encoding="utf-8")
        self.lines: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.hidden = self.in_cell = False
        self.feed(self.html)
        self.text = re.sub(r"\s+", " ", " ".join(self.lines))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden = self.hidden or tag in ("style", "script")
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.hidden = self.hidden and tag not in ("style", "script")
        self.in_cell = self.in_cell and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        if not self.hidden and data.strip():
            self.lines.append(data.strip())
            if self.in_cell:
                self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip()

    def row(self, *first: str) -> list[str]:
        (row,) = [row for row in self.rows if tuple(row[: len(first)]) == first]
        return row


@pytest.mark.slow
def test_report_of_a_run_says_the_result_in_words_and_in_a_table(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", 27)
    page = Page(write_report(run.path))
    assert page.html.count("<h1>The head on VGG19 classifies 27 of 30 test images correctly</h1>") == 1
    assert "The 95 % interval of its accuracy on images like these is 74.4 to 96.5 %." in page.text
    loss, kappa = (run.read_metrics()["test"][name] for name in ("loss", "kappa"))
    assert page.row("head")[1:4] == [
        "90.0 % (74.4–96.5)",
        f"0.8500 ({kappa['low']:.2f}–{kappa['high']:.2f})",
        f"{loss['value']:.3g} ({loss['low']:.2g}–{loss['high']:.2g})",
    ]
    assert "article" not in page.text
    assert page.row("device") == ["device", "abacus"]
    assert page.row("seed_everything") == ["seed_everything", "0"]
    assert page.row("model.lr") == ["model.lr", "0.001"]
    assert page.row("data, sha256") == ["data, sha256", "abababababab"]


@pytest.mark.slow
def test_article_stands_beside_results_on_its_own_images_only(tmp_path: Path) -> None:
    page = Page(write_report(finished_run(tmp_path / "run", source="kth", model="FineTuned").path))
    assert "Fine-tuned VGG19 classifies 27 of 30" in page.text
    assert page.row("(article)")[1] == "80 % (72.6–85.8)"
    assert "The article's model of this kind classified 80 % of 140 images correctly." in page.text


@pytest.mark.slow
def test_classes_are_sorted_by_trouble_and_those_without_images_come_last(tmp_path: Path) -> None:
    names = ["ant", "bee", "cat", "dog"]
    labels, predictions = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 2, 0, 0])
    run = finished_run(tmp_path / "run", names=names)
    run.write_predictions(list("abcdef"), labels, names, np.eye(4)[predictions] * 0.6 + 0.1)
    page = Page(write_report(run.path))
    start = page.rows.index(["class", "F1", "recall", "precision", "images", "trained on", ""])
    assert page.rows[start + 1 : start + 5] == [
        ["cat", "0 %", "0 % (0–66)", "0 % (0–79)", "2", "–", ""],
        ["ant", "67 %", "100 % (34–100)", "50 % (15–85)", "2", "–", ""],
        ["bee", "67 %", "50 % (9–91)", "100 % (21–100)", "2", "–", ""],
        ["dog", "–", "–", "–", "0", "–", ""],
    ]


@pytest.mark.slow
def test_confusion_matrix_and_most_confused_pairs_count_images(tmp_path: Path) -> None:
    page = Page(write_report(finished_run(tmp_path / "run", 24, images=range(31)).path))
    assert page.row("cat", "dog") == ["cat", "dog", "3 of 11"]
    assert page.row("cat", "8") == ["cat", "8", "3", ""]
    assert page.row("emu", "2") == ["emu", "2", "", "8"]


@pytest.mark.slow
def test_hundreds_of_classes_are_shown_as_an_image(tmp_path: Path) -> None:
    names = [f"species {position}" for position in range(150)]
    page = Page(write_report(finished_run(tmp_path / "run", 280, names=names, images=range(300)).path))
    assert any("Confusion matrix of 150 classes" in str(item["alt"]) for item in page.images)
    assert len(page.html) < 2_000_000


@pytest.mark.slow
def test_mistakes_are_shown_most_confident_first_with_image_and_map(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", 10)
    add_mistakes(run)
    page = Page(write_report(run.path))
    assert "12 of 20 mistakes in 30 images" in page.text
    shown = [str(item["alt"]) for item in page.images if str(item["src"]).startswith("data:image/jpeg")]
    assert len(shown) == 24
    assert shown[:2] == [
        "Test image emu/29.jpg, of the class emu",
        "The same image under its activation map for the class cat",
    ]
    assert "74.5 % sure; it is emu" in page.text


@pytest.mark.slow
def test_mistakes_without_images_are_listed(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", 29)
    assert "1 mistake in 30 images." in Page(write_report(run.path)).text
    add_mistakes(run)
    (run.mistakes / "29.jpg").unlink()
    page = Page(write_report(run.path))
    assert "emu/29.jpg" in page.text
    assert not any("Test image" in str(item["alt"]) for item in page.images)


def test_run_without_mistakes_says_so(tmp_path: Path) -> None:
    assert (
        "None: all 30 test images are classified correctly." in Page(write_report(finished_run(tmp_path, 30).path)).text
    )


@pytest.mark.slow
def test_calibration_is_given_raw_and_after_the_temperature(tmp_path: Path) -> None:
    page = Page(write_report(finished_run(tmp_path, 30).path))
    assert "the two differ by 10.0 percentage points on average (expected calibration error)" in page.text
    assert "temperature" not in page.text
    page = Page(write_report(finished_run(tmp_path / "fitted", 30, temperature=0.5).path))
    assert "fitted on the validation images (0.50), it is 0.6 points" in page.text
    with Image.open(tmp_path / "fitted" / "figures" / "reliability.png") as image:
        assert image.width > 300


def test_localisation_is_given_per_class_and_for_each_model(tmp_path: Path) -> None:
    for model in ("head", "finetune"):
        add_localisation(finished_run(tmp_path / model))
    page = Page(write_report(tmp_path))
    assert ["emu", "10", "70 %", "0.40", "0.50"] in page.rows
    assert ["finetune", "30", "80.0 % (70.0–90.0)", "0.800", "0.800"] in page.rows


@pytest.mark.slow
def test_comparison_tells_whether_differences_are_more_than_chance(tmp_path: Path) -> None:
    for folder, model, correct in (
        ("benchmark", "BenchmarkCNN", 9),
        ("head", "FeatureHead", 28),
        ("finetune", "FineTuned", 29),
    ):
        finished_run(tmp_path / folder, correct, model=model, source="kth")
    page = Page(write_report(tmp_path))
    assert "<h1>Fine-tuned VGG19 does best and classifies 29 of 30 test images correctly</h1>" in page.html
    assert "It classifies significantly more of these images correctly than the benchmark CNN." in page.text
    assert " better than" not in page.text.replace("that one recipe is better than another", "")
    assert (
        "It cannot show that one recipe is better than another, since other training images or another seed"
        in page.text
    )
    assert "These images do not show a difference between it and the head on VGG19." in page.text
    assert page.row("benchmark, head") == ["benchmark, head", "0", "19", "< 0.001", "< 0.001"]
    assert page.row("head, finetune") == ["head, finetune", "0", "1", "1", "1"]
    assert page.row("benchmark", "30.0 % (16.7–47.9)")
    assert len([row for row in page.rows if row[0] == "(article)"]) == 3
    (chart,) = [str(item["alt"]) for item in page.images if "against training time" in str(item["alt"])]
    assert "head 93.3 % in 26 s; head, article 60.0 % in 40.8 s" in chart
    assert (tmp_path / "figures" / "accuracy_time.png").stat().st_size > 5000


@pytest.mark.slow
def test_models_that_are_equally_good_are_called_so(tmp_path: Path) -> None:
    finished_run(tmp_path / "head", 28)
    finished_run(tmp_path / "finetune", 28, model="FineTuned")
    page = Page(write_report(tmp_path))
    assert "The head on VGG19 and fine-tuned VGG19 do equally well: each classifies 28 of 30 test images" in page.text
    assert "The head on VGG19 and fine-tuned VGG19 classify the same images correctly." in page.text


@pytest.mark.slow
def test_tie_above_a_worse_model_is_called_so(tmp_path: Path) -> None:
    for model, correct in (("BenchmarkCNN", 5), ("FeatureHead", 28), ("FineTuned", 28)):
        finished_run(tmp_path / model, correct, model=model)
    page = Page(write_report(tmp_path))
    assert "The head on VGG19 and fine-tuned VGG19 do best: each classifies 28 of 30 test images correctly" in page.text
    assert (
        "The head on VGG19 classifies significantly more of these images correctly than the benchmark CNN." in page.text
    )


def finished_folds(folder: Path, correct: dict[str, list[int]], seeds: int = 1) -> None:
    """Write a comparison over folds of 30 images: how many of them each model gets right in each."""
    for model, counts in correct.items():
        for position, count in enumerate(counts):
            fold, seed = position // seeds, position % seeds
            part = folder / (f"seed-{seed}" if seeds > 1 else "") / f"fold-{fold}" / model
            finished_run(part, count, images=range(30 * fold, 30 * fold + 30), temperature=1.5, seed=seed)


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_over_folds_a_model_is_better_where_both_tests_say_so(tmp_path: Path) -> None:
    finished_folds(tmp_path, {"head": [20, 19, 21], "finetune": [30, 29, 30]})
    page = Page(write_report(tmp_path))
    assert "98.9 ± 1.9 %" not in page.text  # of all folds together, as no image is tested twice
    assert "classifies 89 of 90 test images correctly" in page.text
    assert "It is significantly better than head." in page.text
    assert "Finetune is better than head: such a difference is unlikely by chance." in page.text
    # Differences of -1/3, -1/3 and -0.3; no splits.csv, so two training images for each test image.
    row = page.row("head, finetune")
    assert row == ["head, finetune", "0", "29", "< 0.001", "-32.2 (-39.8 to -24.7)", "0.003"]
    assert "12 of 30 mistakes in 90 images" in page.text
    assert "± sd (3)" in page.text
    assert "One seed: the effect of another seed" in page.text
    (item,) = table(tmp_path / "differences.csv")
    assert [item[name] for name in ("first", "second", "folds", "seeds", "verdict")] == [
        "head",
        "finetune",
        "3",
        "1",
        "better",
    ]
    assert float(item["p_holm"]) == float(item["p_t"]) == pytest.approx(0.003, abs=1e-4)
    assert [float(item[name]) for name in ("difference", "low", "high")] == pytest.approx(
        [-0.322, -0.398, -0.247], abs=1e-3
    )


@pytest.mark.slow
def test_a_difference_that_one_fold_makes_is_no_claim(tmp_path: Path) -> None:
    finished_folds(tmp_path, {"head": [20, 28, 28], "finetune": [30, 28, 28]})
    page = Page(write_report(tmp_path))
    assert page.row("head, finetune")[:4] == ["head, finetune", "0", "10", "0.002"]
    assert " better than" not in page.text
    assert "These images do not show a difference between" in page.text
    assert [item["verdict"] for item in table(tmp_path / "differences.csv")] == ["open"]


@pytest.mark.slow
def test_folds_and_seeds_are_told_apart(tmp_path: Path) -> None:
    finished_folds(tmp_path, {"head": [20, 22, 19, 21, 21, 23], "finetune": [30, 30, 29, 29, 29, 30]}, seeds=2)
    page = Page(write_report(tmp_path))
    assert "98.3 ± 1.8 %" in page.text
    assert [row[1] for row in page.rows if row[0].startswith("± folds (3)")] == ["3.3 %", "1.7 %"]
    assert [row[1] for row in page.rows if row[0].startswith("± seeds (2)")] == ["4.7 %", "0.8 %"]
    # Of each fold's images those count that one of the two classifies correctly with more of its seeds.
    assert page.row("head, finetune")[:3] == ["head, finetune", "0", "29"]
    assert [item["verdict"] for item in table(tmp_path / "differences.csv")] == ["better"]
    assert "One seed" not in page.text
    assert "One split" not in page.text


def test_images_that_seeds_tested_again_judge_no_promise(tmp_path: Path) -> None:
    row = {"promised": 0.9, "needs": 9, "n": 100, "hits": 85, "size": 1.2, "single": 0.8, "groups": None}
    wish = {"wanted": 0.8, "needs": 14, "threshold": 0.5, "n": 30, "kept": 28, "right": 25, "groups": None}
    trust = {"validation_images": 60, "min_accuracy": [wish], "sets": [row]}
    for seed in range(5):
        finished_run(tmp_path / f"seed-{seed}" / "head", 25, trust=trust)
    page = Page(write_report(tmp_path))
    assert page.row("90 %")[1:4] == ["9", "85.0 %", "–"]
    assert "The bars are 95 % intervals" not in page.text
    finished_run(tmp_path / "alone" / "head", 25, trust=trust)
    alone = Page(write_report(tmp_path / "alone"))
    assert alone.row("90 %")[1:4] == ["9", "85.0 % (76.7–90.7)", "as promised"]
    assert "The bars are 95 % intervals" in alone.text


def test_one_group_promises_nothing_of_further_ones(tmp_path: Path) -> None:
    row = {"promised": 0.9, "needs": 9, "n": 8, "hits": 7, "size": 1.2, "single": 0.8, "groups": [[8, 7, 1]]}
    wish = {"wanted": 0.8, "needs": 14, "threshold": 0.5, "n": 8, "kept": 8, "right": 7, "groups": [[8, 8, 7, 1]]}
    trust = {"validation_images": 60, "min_accuracy": [wish], "sets": [row]}
    run = finished_run(tmp_path, 7, images=range(8), trust=trust)
    metrics = run.read_metrics()
    metrics["test"] |= {"acc": {"value": 0.875, "low": 0, "high": 1}, "groups": {"n": 1, "figures": []}}
    run.write_metrics(metrics)
    page = Page(write_report(run.path))
    assert page.row("90 %")[1:4] == ["9", "87.5 % (0.0–100.0)", "cannot be told"]
    assert "The test images are of one group, which does not tell what to expect of further groups." in page.text
    assert "The 95 % interval of its accuracy" not in page.text
    assert "“Cannot be told”: one group alone" in page.text
    assert "those of the 8 test images." in page.text


def test_seeds_on_one_split_tell_of_its_images_alone(tmp_path: Path) -> None:
    for seed in range(2):
        for model, correct in (("head", 20 + seed), ("finetune", 26 + 2 * seed)):
            finished_run(tmp_path / f"seed-{seed}" / model, correct)
    page = Page(write_report(tmp_path))
    assert "classifies 90.0 ± 4.7 % of the test images correctly" in page.text
    assert "the figure of all predictions of 2 runs together, and the standard deviation over the runs." in page.text
    assert page.row("head, finetune") == ["head, finetune", "0", "8", "0.0078"]
    assert "classifies more of these images correctly" in page.text
    assert "One split: this shows how these trained models differ" in page.text


def test_unfinished_part_of_a_comparison_is_left_out_by_name(tmp_path: Path) -> None:
    finished_run(tmp_path / "head")
    finished_run(tmp_path / "finetune").metrics.unlink()
    page = Page(write_report(tmp_path))
    assert f"Left out: {tmp_path / 'finetune' / 'metrics.json'} is missing" in page.text
    assert "The head on VGG19 classifies 27 of 30" in page.text


def test_diverged_run_has_a_report(tmp_path: Path) -> None:
    run = finished_run(tmp_path, temperature=1.0)
    found = run.read_predictions()
    nothing = np.full_like(found.probabilities, np.nan)
    run.write_predictions(found.paths, found.labels, NAMES, nothing)
    run.write_metrics(run.read_metrics() | {"test": summarise(found.labels, nothing)})
    assert "its probabilities are not finite numbers" in Page(write_report(tmp_path)).text


@pytest.mark.slow
def test_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = finished_run(tmp_path, temperature=0.7)
    assert write_report(run.path).read_bytes() == write_report(run.path).read_bytes()


def test_drawings_of_the_sample_are_attributed(tmp_path: Path) -> None:
    page = Page(write_report(finished_run(tmp_path, source="sample").path))
    assert "OpenMoji (openmoji.org), CC BY-SA 4.0" in page.text


@pytest.mark.parametrize("gone", ["metrics", "predictions", "config"])
def test_missing_file_of_a_run_is_named(tmp_path: Path, gone: str) -> None:
    run = finished_run(tmp_path)
    getattr(run, gone).unlink()
    with pytest.raises(InputError, match=rf"{gone}\.\w+ is missing"):
        write_report(tmp_path)


@pytest.mark.parametrize("damaged", ["metrics", "predictions", "config", "history"])
def test_damaged_file_of_a_run_is_named(tmp_path: Path, damaged: str) -> None:
    file = getattr(finished_run(tmp_path), damaged)
    file.write_text("epoch,lr\n0,{[\n\n")
    with pytest.raises(InputError, match=rf"{damaged}\.\w+ is damaged"):
        write_report(tmp_path)


def test_run_without_a_history_has_a_report(tmp_path: Path) -> None:
    finished_run(tmp_path).history.unlink()
    assert "history.csv, are missing" in Page(write_report(tmp_path)).text


def test_runs_of_different_classes_are_refused(tmp_path: Path) -> None:
    finished_run(tmp_path / "head")
    finished_run(tmp_path / "finetune", names=["cat", "dog", "yak"])
    with pytest.raises(InputError, match="has other classes than"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "there is no folder"),
        (lambda folder: folder.mkdir(), "holds no run"),
        (lambda folder: (finished_run(folder).path / "report.html").mkdir(), "report.html cannot be written"),
    ],
)
def test_command_answers_bad_input_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture, make: Any, message: str
) -> None:
    make(tmp_path / "run")
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_command_writes_the_report_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = finished_run(tmp_path / "run")
    main(["report", str(run.path)])
    assert str(run.report) in capsys.readouterr().out
    assert "27 of 30" in run.report.read_text(encoding="utf-8")


EVIL = ["<script>document.title = 'broken'</script>", "</style><img src=x>", "🐺 & \"狼\" 'wolf'", "x" * 200]

CONTRAST = """() => {
  const channels = text => {
    const numbers = text.match(/[\\d.]+(e-?\\d+)?/g).map(Number);
    const scale = text.startsWith("color(") ? 1 : 255;
    return [...numbers.slice(0, 3).map(n => n / scale), numbers[3] ?? 1];
  };
  const luminance = colour => colour.slice(0, 3)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const background = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = channels(getComputedStyle(each).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [1, 1, 1];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const pair = [luminance(channels(getComputedStyle(element).color)), luminance(background(element))];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < 4.5) poor.push([element.tagName, element.textContent.trim().slice(0, 30), ratio]);
  }
  return poor;
}"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    for model, correct in (("BenchmarkCNN", 9), ("FeatureHead", 27), ("FineTuned", 29)):
        run = finished_run(folder / "compare" / model, correct, model=model, source="kth", temperature=1.4)
        add_mistakes(run)
        add_localisation(run)
    evil = finished_run(folder / "evil <b>&", 20, names=EVIL)
    add_mistakes(evil)
    many = [f"Pan troglodytes {position}" for position in range(60)]
    finished_run(folder / "many", 150, names=many, images=range(240))
    return {item.name: write_report(item) for item in (folder / "compare", evil.path, folder / "many")}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compare", "evil <b>&", "many"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_is_whole_and_readable_in_a_browser(
    chromium: Any, reports: dict[str, Path], name: str, scheme: str, width: int
) -> None:
    complaints: list[str] = []
    context = chromium.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: request.url.startswith("data:") or complaints.append(request.url))
    page.goto(reports[name].as_uri())
    assert [item for item in complaints if item != reports[name].as_uri()] == []
    assert page.title().endswith(f"– {name}")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    images = page.evaluate("[...document.images].map(i => [i.complete && i.naturalWidth > 0, i.alt])")
    assert len(images) >= 4
    assert all(whole and len(alt) > 20 for whole, alt in images)
    assert page.evaluate(CONTRAST) == []
    red, *_ = map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert red > 200 if scheme == "light" else red < 50
    # A wide table scrolls in its own place, where a keyboard reaches it too.
    wide = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.tabIndex)"
    assert set(page.evaluate(wide)) <= {0}
    if name == "many":
        assert page.evaluate(wide)
    context.close()


@pytest.mark.slow
def test_page_prints_on_paper_from_edge_to_edge(chromium: Any, reports: dict[str, Path]) -> None:
    page = chromium.new_page(viewport={"width": 688, "height": 1000})  # A4 less the margins, at 96 dots per inch
    page.goto(reports["many"].as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("Math.max(...[...document.querySelectorAll('table')].map(t => t.offsetWidth))") <= 688
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every(e => e.scrollHeight <= e.clientHeight + 1)")
    page.close()
