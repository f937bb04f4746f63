"""The settings and the environment of models, side by side."""

from collections.abc import Mapping, Sequence

from kth_lightning.report.model_runs import ModelRuns


def settings_rows(models: Sequence[ModelRuns]) -> list[tuple[str, list[str]]]:
    """List the settings that decide a result, by their flags, with those of each model."""
    return _side_by_side([_recipe(model) for model in models])


def environment_rows(models: Sequence[ModelRuns]) -> list[tuple[str, list[str]]]:
    """List what models were trained with: device, precision, versions and hashes."""
    return _side_by_side([_environment(model) for model in models])


def _recipe(model: ModelRuns) -> dict[str, str]:
    """Give the settings that decide a result, under the names of their flags."""
    idle = {"model.init_args.weights_sha256", "data.cache_dir", "data.augmentation_seed"}
    config = model.configs[0]
    idle |= set() if config.get("data.num_folds") else {"data.fold"}
    idle |= {"data.sample_size", "data.sample_sites"} if model.source != "sample" else set()
    kept = {}
    for key in config:
        chosen = key.startswith(("model.", "data.")) or key in (
            "seed_everything",
            "trainer.max_epochs",
            "monitor",
            "patience",
            "ema_decay",
        )
        values = dict.fromkeys(str(item[key]) for item in model.configs if item.get(key) not in (None, "", [], {}))
        if chosen and values and key not in idle:
            name = "model" if key == "model.class_path" else key.replace("model.init_args.", "model.")
            kept[name] = ", ".join(value.removeprefix("kth_lightning.models.") for value in values)
    return kept


def _environment(model: ModelRuns) -> dict[str, str]:
    values_of: dict[str, dict[str, None]] = {}
    for metrics, config in zip(model.metrics, model.configs, strict=True):
        hashes = metrics.get("hashes") or {}
        for name, value in {
            "device": metrics.get("device"),
            "precision": metrics.get("precision"),
            "parameters": f"{metrics['parameters']:,}" if metrics.get("parameters") else None,
            "program": config["program"],
            **(metrics.get("versions") or {}),
            **{f"{name}, sha256": str(value)[:12] for name, value in hashes.items() if value},
        }.items():
            if value is not None:
                values_of.setdefault(name, {})[str(value)] = None
    return {name: ", ".join(values) for name, values in values_of.items()}


def _side_by_side(columns: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, "–") for column in columns]) for name in names]
