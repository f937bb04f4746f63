import csv
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from lightning import Trainer

import kth_lightning
from kth_lightning import Classifier, ImageData, Predictor
from kth_lightning.cli.main import main
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.testing import check_classifier

NET = """
    import torch
    import torch.nn.functional as F
    from torch import nn

    from kth_lightning import Classifier


    class Smallest(Classifier):
        def __init__(self, num_classes: int, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.dense = nn.Linear(3, num_classes)

        def tail(self, images):
            return self.dense(images.mean((2, 3)))


    class Centred(nn.Module):
        def forward(self, images):
            return images.float() / 127.5 - 1


    class Net(Classifier):
        '''A frozen layer, and two that are trained.'''

        def __init__(self, num_classes: int, width: int = 4, slope: float = 0.1, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.preprocess = Centred()
            self.trunk = nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width))
            self.layer = nn.Conv2d(width, width, 3)
            self.average = nn.AdaptiveAvgPool2d(1)
            self.last = nn.Linear(width, num_classes)
            self.slope = slope

        def tail(self, features):
            maps = F.leaky_relu(self.layer(features), self.slope)
            return self.last(self.average(maps).flatten(1))

        def class_activation(self):
            return self.average, self.last


    class Focal(nn.Module):
        def __init__(self, gamma: float = 2.0):
            super().__init__()
            self.gamma = gamma

        def forward(self, logits, labels):
            losses = F.cross_entropy(logits, labels, reduction="none")
            return (1 - torch.exp(-losses)) ** self.gamma * losses


    class Tailless(Classifier):
        pass


    class Alone(Classifier):
        def __init__(self, num_classes: int):
            super().__init__(num_classes)
            self.dense = nn.Linear(3, num_classes)

        def tail(self, images):
            return self.dense(images.mean((2, 3)))


    class Faulty(Smallest):
        def __init__(self, num_classes: int, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.dense = nn.Linear(3, number_of_classes)


    class TooWide(Smallest):
        def __init__(self, num_classes: int, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.dense = nn.Linear(3, num_classes + 1)


    class Idle(Smallest):
        def tail(self, images):
            return images.mean((2, 3))


    class Method(Smallest):
        def trunk(self, images):
            return images
"""


def command(images: Path, run: Path, *flags: str) -> list[str]:
    args = ["fit", "--data.root", str(images), "--data.image_size", "32", "--data.views", "1", "--run_dir", str(run)]
    args += ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32"]
    return [*args, "--trainer.max_epochs", "2", *flags]


def package_at_hand() -> dict[str, str]:
    """Return an environment in which a command, in whatever folder, is that of this package."""
    return os.environ | {"PYTHONPATH": str(Path(kth_lightning.__file__).parents[1])}


def epochs(run: RunFolder) -> list[dict[str, str]]:
    if not run.history.exists():
        return []
    rows = csv.DictReader(run.history.read_text(encoding="utf-8").splitlines())
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.slow
def test_a_network_with_parts_of_ones_own_goes_the_whole_way(
    mine: Callable[[str], None],
    images: Path,
    tmp_path: Path,
    whole_way: Callable[..., None],
    refusal: Callable[..., str],
    capsys: pytest.CaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    mine(NET)
    run = RunFolder(tmp_path / "run")
    flags = ["--model", "mine.Net", "--model.width", "6", "--model.loss", "mine.Focal", "--model.loss.gamma", "1.5"]
    flags += ["--model.optimizer", "Adam", "--model.optimizer.lr", "0.01", "--model.lr_scheduler", "OneCycleLR"]
    flags += ["--model.lr_scheduler.max_lr", "0.05", "--data.tta_flip", "true"]
    flags += ["--model.metrics", "{f1: torchmetrics.classification.MulticlassF1Score}"]
    trust = ["--model_class", "mine.Net"]
    whole_way(command(images, run.path, *flags), run, *trust)
    assert not [item for item in recwarn if "lack" in str(item.message)]
    history, metrics = run.read_history(), run.read_metrics()
    assert {"train/f1", "val/f1"} <= history[0].keys()
    assert metrics["val"]["f1"] == history[metrics["best_epoch"]]["val/f1"]
    assert 0 <= metrics["test"]["f1"]["value"] <= 1
    assert metrics["model"] == "Net"
    assert "Net" in run.report.read_text(encoding="utf-8")

    checkpoint = ["--ckpt_path", str(run.best_checkpoint)]
    for words in (["predict", str(images), "--output", "a.csv"], ["export", "--output", "a.pt2"]):
        sentence = refusal(*words, *checkpoint)
        assert "holds a mine.Net, a class from outside kth_lightning; if you trust its code, say so with" in sentence
        assert sentence.endswith("--model_class mine.Net (in Python: model_class=Net)")
    assert "holds a mine.Net, not a Smallest" in refusal(
        "predict", images, "--output", "a.csv", *checkpoint, "--model_class", "mine.Smallest"
    )
    assert "did you mean mine.Net?" in refusal(
        "predict", images, "--output", "a.csv", *checkpoint, "--model_class", "mine.Nett"
    )
    cpu = ["--accelerator", "cpu"]
    main(["predict", str(images), "--output", str(tmp_path / "table.csv"), *checkpoint, *trust, *cpu])
    with (tmp_path / "table.csv").open(encoding="utf-8") as stream:
        told = {Path(row["path"]).relative_to(images).as_posix(): row for row in csv.DictReader(stream)}
    tested = run.read_predictions()
    for path, row in zip(tested.paths, tested.probabilities, strict=True):
        assert told[path]["label"] == tested.class_names[row.argmax()]
        assert float(told[path]["probability"]) == pytest.approx(row.max(), abs=1e-4)

    kind = importlib.import_module("mine").Net
    predictor = Predictor(run.best_checkpoint, "cpu", model_class=kind)
    assert predictor.model.settings["width"] == 6
    assert predictor(images / tested.paths[0]).probability == pytest.approx(tested.probabilities[0].max(), abs=1e-4)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), dtype=np.uint8)
    for suffix in ("onnx", "pt2"):
        main(["export", "--output", str(tmp_path / f"net.{suffix}"), *checkpoint, *trust])
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    assert session.run(None, {"images": pixels})[0].max() == pytest.approx(predictor(pixels[0]).probability, abs=1e-4)
    assert "Net" in (tmp_path / "net.onnx.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_editing_ones_trunk_gives_other_features(mine: Callable[[str], None], images: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    stores = []
    for code in (NET, NET, NET.replace("127.5 - 1", "127.5 - 0.5")):
        mine(code)
        run = tmp_path / f"run{len(stores)}"
        main(command(images, run, "--model", "mine.Net", "--data.cache_dir", str(cache), "--trainer.max_epochs", "1"))
        stores.append({path.name for path in (cache / "features").iterdir()})
    assert [len(names) for names in stores] == [1, 1, 2]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Tailless", "--model: Tailless defines no tail"),
        ("Alone", "--model: Alone has a class_names of its own, which must be that of the data; give its __init__"),
        ("Faulty", "fails (NameError: name 'number_of_classes' is not defined); correct it"),
        (
            "TooWide",
            "--model: the tail of TooWide gives logits of shape [20, 4]; for 3 classes it must give [images, 3]",
        ),
        ("Idle", "--model: there is no parameter to train"),
        ("Method", "--model: Method has a method trunk; make it a module, and set it in __init__"),
        ("Focal", "--model mine.Focal: this is not a subclass of Classifier"),
        ("Nets", "--model mine.Nets: the module mine has no 'Nets'; did you mean mine.Net?"),
    ],
)
def test_a_class_that_cannot_be_trained_gets_one_sentence(
    name: str, sentence: str, mine: Callable[[str], None], images: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    mine(NET.replace("class Idle(Smallest):", "class Idle(Classifier):"))
    assert sentence in refusal(*command(images, tmp_path / "run", "--model", f"mine.{name}"))


def test_a_class_keeps_its_promises_or_is_told_which_it_breaks(mine: Callable[[str], None]) -> None:
    mine(NET)
    module = importlib.import_module("mine")
    check_classifier(module.Smallest)
    check_classifier(module.Net, width=3, loss=module.Focal())
    with pytest.raises(AssertionError, match=r"mine.TooWide gives logits of shape \[4, 4\] for 4 images of 3 classes"):
        check_classifier(module.TooWide)


def test_lightnings_trainer_alone_trains_it_and_its_checkpoint_predicts(
    mine: Callable[[str], None], images: Path, tmp_path: Path
) -> None:
    mine(NET)
    kind: type[Classifier] = importlib.import_module("mine").Net
    data = ImageData(root=str(images), image_size=32)
    model = kind(3, class_names=data.class_names, image_size=32, width=5)  # type: ignore[call-arg]
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing"), False)
    trainer = Trainer(accelerator="cpu", max_epochs=1, **quiet)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=r"model_class=Net\)"):
        Predictor(tmp_path / "a.ckpt", "cpu")
    predictor = Predictor(tmp_path / "a.ckpt", "cpu", model_class=kind)
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = model.eval()(image[None]).softmax(1).max().item()
    assert predictor(image).probability == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_a_killed_run_of_it_goes_on_to_the_same_bits(mine: Callable[[str], None], images: Path, tmp_path: Path) -> None:
    mine(NET)
    straight, killed = (RunFolder(tmp_path / name) for name in ("straight", "killed"))
    flags = ["--model", "mine.Net", "--model.loss", "mine.Focal", "--model.optimizer", "Adam", "--data.views", "3"]
    flags += ["--model.optimizer.lr", "0.01", "--trainer.max_epochs", "6", "--trainer.deterministic", "true"]

    def begin(run: RunFolder) -> subprocess.Popen[bytes]:
        args = [sys.executable, "-m", "kth_lightning", *command(images, run.path, *flags)]
        hidden = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(args, cwd=tmp_path / "somebody", env=package_at_hand(), **hidden)

    assert begin(straight).wait(timeout=300) == 0
    process = begin(killed)
    while not killed.last_checkpoint.exists() or len(epochs(killed)) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not killed.finished
    assert begin(killed).wait(timeout=300) == 0
    assert epochs(killed) == epochs(straight)
    assert len(epochs(killed)) == 6
    assert killed.predictions.read_bytes() == straight.predictions.read_bytes()
    ours, theirs = (torch.load(run.last_checkpoint, weights_only=True)["state_dict"] for run in (killed, straight))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


@pytest.mark.slow
def test_two_processes_train_it_as_one_does(mine: Callable[[str], None], images: Path, tmp_path: Path) -> None:
    mine(NET)
    runs = [RunFolder(tmp_path / name) for name in ("one", "two")]
    flags = ["--model", "mine.Net", "--model.metrics", "{f1: torchmetrics.classification.MulticlassF1Score}"]
    for run, devices in zip(runs, ("1", "2"), strict=True):
        args = [*command(images, run.path, *flags), "--trainer.devices", devices]
        folder = Path(sys.modules["mine"].__file__ or "").parent if "mine" in sys.modules else tmp_path / "somebody"
        subprocess.run([sys.executable, "-m", "kth_lightning", *args], cwd=folder, check=True, timeout=300)
    one, two = (run.read_metrics() for run in runs)
    for name in ("loss", "f1"):
        assert two["test"][name]["value"] == pytest.approx(one["test"][name]["value"], abs=1e-4)
