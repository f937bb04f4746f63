"""What the runs of each model in a folder left behind, read together."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from kth_lightning.data.sources.choose import source_name
from kth_lightning.errors import InputError
from kth_lightning.evaluation.calibration import apply_temperature
from kth_lightning.evaluation.clusters import cluster_numbers
from kth_lightning.evaluation.selective import RiskCoverage, risk_coverage
from kth_lightning.io.flat_settings import flat_settings
from kth_lightning.io.predictions_file import Predictions
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.report.registry import MODELS, name_of
from kth_lightning.report.same_images import image_names
from kth_lightning.report.table import Part


@dataclass(frozen=True)
class ModelRuns:
    """Hold what the runs of one model left behind: one run, or one a fold or seed.

    Attributes:
        part: The runs.
        metrics: One a run.
        configs: One a run, flat, such as {"data.batch_size": 20}; "program" is the version that wrote it.
        predictions: One a run.
    """

    part: Part
    metrics: list[dict[str, Any]]
    configs: list[dict[str, Any]]
    predictions: list[Predictions]

    @classmethod
    def read(cls, part: Part) -> "ModelRuns":
        """Read the runs.

        Raises:
            InputError: A file is missing or damaged, or the runs know different classes.
        """
        metrics = [run.read_metrics() for run in part.runs]
        predictions = [run.read_predictions() for run in part.runs]
        for run, item in zip(part.runs, predictions, strict=True):
            _check_classes(part.runs[0], predictions[0], run, item)
        return cls(part, metrics, [_read_config(run) for run in part.runs], predictions)

    @property
    def class_names(self) -> list[str]:
        """Name the classes, C of them."""
        return self.predictions[0].class_names

    @property
    def paths(self) -> list[str]:
        """Name the test images of all runs, N of them."""
        return [path for item in self.predictions for path in item.paths]

    @cached_property
    def names(self) -> list[str]:
        """Name the test images of all runs by their content, N of them."""
        runs = zip(self.part.runs, self.predictions, strict=True)
        return [name for run, item in runs for name in image_names(run, item)]

    @property
    def repeated(self) -> bool:
        """Tell whether several runs tested the same image, as those of seeds do and those of folds do not."""
        return len(self.metrics) > 1 and len(set(self.names)) < len(self.names)

    @property
    def groups(self) -> list[str]:
        """Name what each test image belongs to, empty where it belongs to nothing; N of them."""
        return [group for item in self.predictions for group in item.groups]

    @property
    def independent(self) -> bool:
        """Tell whether each test image is a trial of its own: tested once, and of no group."""
        return not self.repeated and not any(self.groups)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Give the indices of the true classes, shape [N]."""
        return np.concatenate([item.labels for item in self.predictions])

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Give what the model said, shape [N, C]."""
        return np.concatenate([item.probabilities for item in self.predictions])

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Tell which images are classified correctly, shape [N]."""
        return self.probabilities.argmax(axis=1) == self.labels

    @cached_property
    def risk_coverage(self) -> RiskCoverage:
        """Tell how fast mistakes become rare if the least confident predictions are withheld."""
        return risk_coverage(self.probabilities.max(axis=1), self.right, cluster_numbers(self.groups))

    @property
    def temperatures(self) -> list[float]:
        """Give the fitted temperature of each run; none where a run has none."""
        fitted = [run["temperature"] for run in self.metrics if run.get("temperature")]
        return fitted if len(fitted) == len(self.metrics) else []

    @property
    def calibrated(self) -> npt.NDArray[np.float64] | None:
        """Give the probabilities after the temperature, shape [N, C], or None where there is none."""
        scaled = [
            apply_temperature(item.probabilities, temperature)
            for item, temperature in zip(self.predictions, self.temperatures, strict=False)
        ]
        return np.concatenate(scaled) if scaled else None

    @property
    def is_finite(self) -> bool:
        """Tell whether all probabilities are numbers."""
        return bool(np.isfinite(self.probabilities).all())

    @property
    def source(self) -> str:
        """Name where the images came from: "kth", "folder", "table", "sample", or the class of another source."""
        settings = {name.removeprefix("data."): value for name, value in self.configs[0].items()}
        return source_name(settings | {"source": settings.get("source.class_path", settings.get("source"))})


def find_models(folder: Path) -> tuple[list[ModelRuns], list[str]]:
    """Read a run folder, or every finished run in a folder of `compare`.

    Args:
        folder: A run, or a folder with runs as `<model>/`, or below `seed-<s>/` and `fold-<k>/`.

    Returns:
        One entry a model, the article's three first, and sentences about the runs that have not finished.

    Raises:
        InputError: There is no finished run, a file of one is damaged, or the runs know different classes.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give a run folder, or the folder that compare wrote")
    if _is_run(folder):
        kind = str(RunFolder(folder).read_metrics().get("model"))
        return [ModelRuns.read(Part(name_of(kind) or folder.resolve().name, [RunFolder(folder)]))], []
    runs: dict[str, list[RunFolder]] = {}
    unfinished = []
    for position in ("*", "fold-*/*", "seed-*/*", "seed-*/fold-*/*"):
        for path in sorted(filter(_is_run, folder.glob(position)), key=_in_order):
            try:
                RunFolder(path).read_metrics()
                runs.setdefault(path.name, []).append(RunFolder(path))
            except InputError as error:
                unfinished.append(str(error))
    if not runs:
        empty = f"{folder} holds no run; give a run folder, or the folder that compare wrote"
        raise InputError(unfinished[0] if unfinished else empty)
    models = [ModelRuns.read(Part(name, runs[name])) for name in sorted(runs, key=lambda name: _in_order(Path(name)))]
    first = models[0]
    for model in models:
        _check_classes(first.part.runs[0], first.predictions[0], model.part.runs[0], model.predictions[0])
    return models, unfinished


def _check_classes(first: RunFolder, expected: Predictions, run: RunFolder, predictions: Predictions) -> None:
    if predictions.class_names != expected.class_names:
        raise InputError(f"{run.predictions} has other classes than {first.predictions}; give the folder of one run")


def _is_run(path: Path) -> bool:
    run = RunFolder(path)
    return any(file.exists() for file in (run.config, run.metrics, run.predictions))


def _in_order(path: Path) -> tuple[int, list[str]]:
    """Sort the article's models as the article does, and fold-10 after fold-9."""
    known = list(MODELS)
    return (
        known.index(path.name) if path.name in known else len(known),
        [word.zfill(9) for word in re.split(r"(\d+)", str(path))],
    )


def _read_config(run: RunFolder) -> dict[str, Any]:
    try:
        text = run.config.read_text(encoding="utf-8")
        settings = yaml.safe_load(text)
    except FileNotFoundError:
        raise InputError(f"{run.config} is missing; start that run again") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        settings = None
    if not isinstance(settings, dict):
        raise InputError(f"{run.config} is damaged; delete the folder and start its run again")
    program = re.match(r"# (kth_lightning \S+)", text)
    return flat_settings(settings) | {"program": program[1] if program else "kth_lightning"}
