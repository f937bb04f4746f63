import csv
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SMALL = ["--data.image_size", "64", "--data.views", "1", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"]


THREE = ["--models", "benchmark", "head", "finetune"]


def compare(images: Path, run_dir: Path, *flags: str) -> list[str]:
    return ["compare", "--data.root", str(images), "--run_dir", str(run_dir), *SMALL, *flags]


def test_compare_trains_the_three_on_one_split_and_writes_the_table(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cache = tmp_path / "cache"
    models = ["benchmark"]
    for name in ("head", "finetune"):
        recipe = yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text(encoding="utf-8"))
        recipe["data"] = {"augmentation": "standard", "views": 2, "tta_flip": True}  # the same for both, as maps are
        models.append(str(tmp_path / f"{name}.yaml"))
        Path(models[-1]).write_text(yaml.safe_dump(recipe), encoding="utf-8")
    args = compare(images, tmp_path, "--models", *models, "--trainer.devices", "1", "--data.cache_dir", str(cache))
    main(args)
    printed = capsys.readouterr().out
    table = (tmp_path / "table.md").read_text()
    assert table.strip() in printed
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:5]] == ["benchmark", "head", "finetune"]
    assert "article" not in table
    assert "McNemar" in (tmp_path / "report.html").read_text()
    runs = {name: RunFolder(tmp_path / name) for name in ("benchmark", "head", "finetune")}
    assert len({run.splits.read_text() for run in runs.values()}) == 1
    assert len({tuple(run.read_predictions().paths) for run in runs.values()}) == 1
    features = [file.stat().st_mtime_ns for file in cache.glob("features/*/*")]
    assert max(features) < runs["head"].metrics.stat().st_mtime_ns  # block 5 was trained on maps that the head left
    config = yaml.safe_load(runs["finetune"].config.read_text())
    assert config["model"]["init_args"]["init_head_from"] == str(runs["head"].best_checkpoint)
    figures = json.loads((tmp_path / "table.json").read_text())
    assert [entry["acc"]["value"] for entry in figures] == [
        run.read_metrics()["test"]["acc"]["value"] for run in runs.values()
    ]

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.c*")}
    runs["finetune"].metrics.unlink()
    main(args)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.c*")}
    tables = {tmp_path / "differences.csv"}
    assert {path for path in before if before[path] != after[path]} <= set(runs["finetune"].path.rglob("*")) | tables
    # Columns are as wide as the widest of their cells.
    again = (tmp_path / "table.md").read_text()
    assert [line.split() for line in again.splitlines()[2:4]] == [line.split() for line in table.splitlines()[2:4]]


def test_folds_test_every_image_once_and_pool_the_predictions(images: Path, tmp_path: Path) -> None:
    main(compare(images, tmp_path, "--models", "head", "--folds", "3", "--trainer.devices", "1"))
    tested = [path for fold in range(3) for path in RunFolder(tmp_path / f"fold-{fold}/head").read_predictions().paths]
    assert len(tested) == len(set(tested)) == 60
    (entry,) = json.loads((tmp_path / "table.json").read_text())
    assert (entry["runs"], entry["n"]) == (3, 60)


TINY = "model:\n  class_path: BenchmarkCNN\n  init_args: {filters: [4, 8], block_dropout: [0, 0]}\n"
HEAD = "model:\n  class_path: FeatureHead\n  init_args: {backbone: test_resnet, weights: none}\ndata: {views: 1}\n"


def test_recipe_files_are_compared_beside_names_and_the_article_has_none(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny, tuned, head = (tmp_path / "my" / f"{name}.yaml" for name in ("tiny", "a-tuned", "small-head"))
    tiny.parent.mkdir()
    tiny.write_text(TINY)
    head.write_text(HEAD)
    tuned.write_text(HEAD.replace("FeatureHead", "FineTuned"))
    files = [str(file) for file in (tiny, tuned, head)]
    main(compare(images, tmp_path, "--models", *files, "best", "--trainer.devices", "1"))
    names = [entry["model"] for entry in json.loads((tmp_path / "table.json").read_text())]
    assert names == ["tiny", "small-head", "best", "a-tuned"]
    assert all(name in (tmp_path / "report.html").read_text() for name in names)
    config = yaml.safe_load(RunFolder(tmp_path / "a-tuned").config.read_text())
    assert config["model"]["init_args"]["init_head_from"] == str(RunFolder(tmp_path / "small-head").best_checkpoint)
    with pytest.raises(SystemExit, match="2"):
        main(compare(images, tmp_path / "blog", "--models", "best", "--recipe", "blog"))
    assert "--models best: the article has no such recipe" in capsys.readouterr().err
    assert not (tmp_path / "blog").exists()


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "x.yaml: there is no such file; give a recipe"),
        ({"x.yaml": "data: {}"}, "the file names no model; give it lines such as 'model: FeatureHead'"),
        ({"x.yaml": "model: [1"}, "x.yaml is not valid YAML"),
        ({"fold-1.yaml": TINY}, "a comparison's folder uses the name fold-1; rename the file"),
        ({"a/x.yaml": TINY, "b/x.yaml": TINY}, "would write the same folder, x; rename one"),
        ({"best.yaml": TINY}, "would write the same folder, best; rename one"),
    ],
)
def test_recipe_files_that_cannot_be_compared_get_one_sentence(
    files: dict[str, str], sentence: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    words = [str(tmp_path / name) for name in files or ["x.yaml"]]
    with pytest.raises(SystemExit, match="2"):
        main(compare(images, tmp_path / "out", "--models", "best", *words))
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_files_of_settings_reach_every_part(images: Path, tmp_path: Path) -> None:
    files = {
        "tiny.yaml": TINY,
        "data.yaml": f"root: {images}\nval_size: 5\nimage_size: 32\n",
        "trainer.yaml": "max_epochs: 2\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    flags = ["--data", str(tmp_path / "data.yaml"), f"--trainer={tmp_path / 'trainer.yaml'}", "--data.test_size", "7"]
    flags += ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    main(["compare", "--models", str(tmp_path / "tiny.yaml"), *flags, "--run_dir", str(tmp_path / "out")])
    run = RunFolder(tmp_path / "out/tiny")
    parts = Counter(row["part"] for row in csv.DictReader(run.splits.read_text().splitlines()))
    assert parts == {"train": 48, "val": 5, "test": 7}
    assert len(run.read_history()) == 2


def test_a_network_that_begins_from_a_head_is_trained_behind_it_whatever_both_are_called(
    images: Path, tmp_path: Path
) -> None:
    names = ("best", "finetune", "mine")
    for name in names:
        (tmp_path / f"{name}.yaml").write_text(HEAD if name == "mine" else HEAD.replace("FeatureHead", "FineTuned"))
    main(compare(images, tmp_path, "--models", *(str(tmp_path / f"{name}.yaml") for name in names)))
    head = RunFolder(tmp_path / "mine")
    for name in ("best", "finetune"):
        tuned = RunFolder(tmp_path / name)
        assert tuned.config.stat().st_mtime_ns > head.metrics.stat().st_mtime_ns
        config = yaml.safe_load(tuned.config.read_text())
        assert config["model"]["init_args"]["init_head_from"] == str(head.best_checkpoint)


def test_the_folder_of_a_run_is_no_place_for_a_comparison(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("{}")
    with pytest.raises(SystemExit, match="2"):
        main(compare(images, tmp_path / "run", "--models", "head"))
    assert "holds a run that was trained there; give another folder" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_seeds_train_from_other_beginnings_on_the_same_split(images: Path, tmp_path: Path) -> None:
    main(compare(images, tmp_path, "--models", "head", "--seeds", "2", "--trainer.devices", "1"))
    one, other = (RunFolder(tmp_path / f"seed-{seed}/head") for seed in range(2))
    assert one.splits.read_text() == other.splits.read_text()
    assert one.predictions.read_text() != other.predictions.read_text()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_config_yaml_of_every_part_repeats_it_bit_for_bit(precision: str, images: Path, tmp_path: Path) -> None:
    flags = ["--trainer.devices", "1", "--trainer.precision", precision, "--data.image_size", "32"]
    main(compare(images, tmp_path, *THREE, *flags))
    for model in ("benchmark", "head", "finetune"):
        run, again = RunFolder(tmp_path / model), RunFolder(tmp_path / "again" / model)
        main(["fit", "--config", str(run.config), "--run_dir", str(again.path)])
        assert figures(again) == figures(run)
        assert again.config.read_text() == run.config.read_text()
        assert again.predictions.read_text() == run.predictions.read_text()
        ours, theirs = (torch.load(item.best_checkpoint, weights_only=True)["state_dict"] for item in (again, run))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())


def figures(run: RunFolder) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.read_history()]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--models", "resnet"], "there is no recipe of this name, but benchmark, best, fast, finetune, head"),
        (["--models", "bset"], "did you mean best?"),
        (["--folds", "1"], "--folds"),
        (["--seeds", "0"], "--seeds"),
        (["--data.test_size", "500"], "--data.test_size"),
        (["--folds", "30"], "--data.num_folds"),
    ],
    ids=lambda value: "".join(value),
)
def test_bad_settings_get_one_sentence(
    flags: list[str], named: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(compare(images, tmp_path, *THREE, *flags))
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err.strip().splitlines()[-1]
