import io
import json
import re
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kth_lightning.callbacks.cam_snapshots import CamSnapshots
from kth_lightning.cli.main import main
from kth_lightning.explain.cam import activation_maps
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import BenchmarkCNN, Classifier, FeatureHead, FineTuned

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SMALL = ["--data.image_size", "64", "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
FIGURES = ("loss", "acc", "kappa", "recall")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    flags = ["--data.root", str(images), "--data.views", "1", "--data.tta_flip", "false", "--trainer.max_epochs", "5"]
    main(["compare", "--models", "benchmark", "head", "--run_dir", str(folder), *SMALL, *flags])
    return folder


class Server:
    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, **query: str) -> Any:
        return self._ask(f"{path}?{urllib.parse.urlencode(query)}")

    def post(self, path: str, **content: Any) -> Any:
        return self._ask(path, json.dumps(content).encode())

    def _ask(self, path: str, content: bytes | None = None) -> Any:
        request = urllib.request.Request(f"{self.address}/data/{path}", content, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def server(compared: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(compared), "--port", str(port)]
    process = subprocess.Popen([*command, "--host", "127.0.0.1"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        server = Server(f"http://127.0.0.1:{port}")
        started = time.monotonic()
        while not _ready(server):
            assert process.poll() is None
            assert time.monotonic() - started < 120
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.communicate()


def _ready(server: Server) -> bool:
    try:
        tags = server.get("plugin/scalars/tags")
        return len(tags) == 2 and all("test/recall" in known for known in tags.values())
    except OSError:
        return False


def test_scalars_are_grouped_over_epochs_and_none_is_doubled(server: Server, compared: Path) -> None:
    tags = server.get("plugin/scalars/tags")
    curves = {f"{part}/{name}" for part in ("train", "val") for name in FIGURES}
    final = {f"{part}/{name}" for part in ("test", "val_best") for name in FIGURES}
    for model in ("benchmark", "head"):
        run = RunFolder(compared / model)
        history, metrics = run.read_history(), run.read_metrics()
        monitored = {"val/loss_calibrated"} if model == "benchmark" else set()  # what its recipe chooses the epoch by
        assert set(tags[model]) == curves | final | monitored | {"train/lr"}
        for tag in curves:
            points = server.get("plugin/scalars/scalars", run=model, tag=tag)
            assert [(step, pytest.approx(value)) for _, step, value in points] == [
                (row["epoch"], row[tag]) for row in history
            ]
        ((_, step, value),) = server.get("plugin/scalars/scalars", run=model, tag="test/loss")
        assert (step, value) == (metrics["best_epoch"], pytest.approx(metrics["test"]["loss"]["value"]))
        ((_, step, value),) = server.get("plugin/scalars/scalars", run=model, tag="val_best/loss")
        assert (step, value) == (metrics["best_epoch"], pytest.approx(metrics["val"]["loss"]))


def test_loss_of_training_validation_and_test_share_a_chart(server: Server) -> None:
    (category,) = server.get("plugin/custom_scalars/layout")["category"]
    charts = {chart["title"]: chart["multiline"]["tag"] for chart in category["chart"]}
    assert [bool(re.match(tag, "val/loss")) for tag in charts["cross-entropy"]] == [False, True, False]
    assert not any(re.match(tag, "val_best/loss") for tag in charts["cross-entropy"])
    assert len(charts) == 4


def test_images_show_examples_confusion_and_maps_over_epochs(server: Server, compared: Path) -> None:
    tags = server.get("plugin/images/tags")
    wanted = {"train/examples", "val/activation_maps", "val/confusion", "test/confusion"}
    assert {model: set(known) for model, known in tags.items()} == {"benchmark": wanted, "head": wanted}
    for model in ("benchmark", "head"):
        shown = server.get("plugin/images/images", run=model, tag="val/activation_maps", sample="0")
        assert [item["step"] for item in shown] == [0, 1, 3, 4]
        sheets = [_image(server, item["query"]) for item in shown]
        assert len({sheet.tobytes() for sheet in sheets}) == 4
    (shown,) = server.get("plugin/images/images", run="head", tag="test/confusion", sample="0")
    assert _image(server, shown["query"]).std() > 0


def _image(server: Server, query: str) -> np.ndarray:
    with urllib.request.urlopen(f"{server.address}/data/plugin/images/individualImage?{query}", timeout=30) as answer:
        return np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB"))


def test_hyperparameters_of_all_runs_stand_beside_their_figures(server: Server, compared: Path) -> None:
    experiment = server.post("plugin/hparams/experiment", experimentName="")
    settings = [info["name"] for info in experiment["hparamInfos"]]
    differing = {info["name"] for info in experiment["hparamInfos"] if info["differs"]}
    assert {"model", "optimizer.lr", "dropout"} <= differing
    assert not {"image_size", "seed"} & differing
    columns = [{"hparam": name} for name in settings] + [{"metric": info["name"]} for info in experiment["metricInfos"]]
    groups = server.post(
        "plugin/hparams/session_groups",
        experimentName="",
        allowedStatuses=["STATUS_SUCCESS"],
        colParams=columns,
        startIndex=0,
        sliceSize=10,
    )["sessionGroups"]
    assert {group["name"]: group["hparams"]["model"] for group in groups} == {
        "benchmark": "BenchmarkCNN",
        "head": "FeatureHead",
    }
    for group in groups:
        values = {item["name"]["tag"]: item["value"] for item in group["metricValues"]}
        metrics = RunFolder(compared / group["name"]).read_metrics()
        for name in FIGURES:
            assert values[f"test/{name}"] == pytest.approx(metrics["test"][name]["value"])
            assert values[f"val_best/{name}"] == pytest.approx(metrics["val"][name])


def test_projector_has_the_features_that_enter_the_dense_layer(server: Server, compared: Path) -> None:
    assert set(server.get("plugin/projector/runs")) == {"benchmark", "head"}
    (embedding,) = server.get("plugin/projector/info", run="head")["embeddings"]
    run = RunFolder(compared / "head")
    predictions = run.read_predictions()
    assert embedding["tensorShape"] == [len(predictions.paths), 512]
    vectors = np.loadtxt(compared / "head" / embedding["tensorPath"], delimiter="\t")
    state = torch.load(run.best_checkpoint, weights_only=True)["state_dict"]
    logits = vectors @ state["head.1.weight"].double().numpy().T + state["head.1.bias"].double().numpy()
    odds = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(odds / odds.sum(1, keepdims=True), predictions.probabilities, atol=1e-3)
    header, *rows = (compared / "head" / embedding["metadataPath"]).read_text(encoding="utf-8").splitlines()
    assert header.split("\t") == ["label", "prediction", "verdict", "confidence", "path"]
    assert [row.split("\t")[-1] for row in rows] == predictions.paths
    assert [row.split("\t")[0] for row in rows] == [predictions.class_names[label] for label in predictions.labels]


def test_a_browser_shows_both_runs_in_the_table_of_hyperparameters(server: Server, chromium: Any) -> None:
    page = chromium.new_page()
    page.goto(f"{server.address}/#hparams")
    for text in ("BenchmarkCNN", "FeatureHead", "test/acc"):
        page.get_by_text(text, exact=True).last.wait_for(state="attached", timeout=90_000)
    page.close()


def test_a_browser_draws_the_test_features_as_points(server: Server, chromium: Any, compared: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    number = len(RunFolder(compared / "head").read_predictions().paths)
    page = chromium.new_page()
    page.goto(f"{server.address}/#projector")
    projector = page.frame_locator("iframe").frame_locator("iframe")
    playwright.expect(projector.locator(".numDataPoints")).to_have_text(str(number), timeout=90_000)
    page.close()


@pytest.mark.parametrize("tta_flip", [False, True])
@pytest.mark.parametrize("kind", [BenchmarkCNN, FeatureHead, FineTuned])
def test_watched_images_have_the_maps_of_the_whole_network(kind: Callable[..., Classifier], tta_flip: bool) -> None:
    torch.manual_seed(0)
    settings = {} if kind is BenchmarkCNN else {"weights": "none"}
    model = kind(3, image_size=64, tta_flip=tta_flip, **settings).eval()
    images, labels = torch.randint(256, (4, 3, 64, 64)), torch.tensor([0, 1, 2, 1])
    with torch.no_grad():
        watched = CamSnapshots(model, images, labels)
        for _ in range(2):
            logits, maps = watched.maps()
            all_logits, all_maps = activation_maps(model, images)
            torch.testing.assert_close(logits, all_logits)
            torch.testing.assert_close(maps, all_maps[torch.arange(4), labels], rtol=1e-3, atol=1e-4)
            for parameter in model.head.parameters():
                parameter.mul_(2)


def test_what_cannot_be_drawn_costs_a_warning_and_not_the_run(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("projector", "figures"):
        (tmp_path / name).write_text("no folder")
    flags = ["--data.root", str(images), "--trainer.max_epochs", "1", "--run_dir", str(tmp_path)]
    main(["fit", "--config", str(ROOT / "configs/benchmark.yaml"), *SMALL, *flags])
    printed = capsys.readouterr().err
    for sentence in ("TensorBoard will lack the embedding", "curves.png is not drawn", "confusion.png is not drawn"):
        assert len(re.findall(rf"warning: .*{sentence} \(\w+: ", printed)) == 1
    run = RunFolder(tmp_path)
    assert run.finished
    assert run.report.exists()
    (tmp_path / "figures").unlink()
    main(["report", str(tmp_path)])
    assert {file.stem for file in run.figures.iterdir()} == {"confusion", "curves", "reliability", "risk_coverage"}
