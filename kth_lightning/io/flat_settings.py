"""Configurations as flat tables of flags and values."""

from typing import Any


def flat_settings(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Name every setting of a configuration by its flag, such as data.batch_size; an empty mapping is a setting."""
    if not isinstance(settings, dict) or not settings:
        return {prefix: settings}
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flat_settings(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def told_settings(init_args: dict[str, Any]) -> dict[str, Any]:
    """Name a model's settings for people: a class by its name alone, of an optimiser what one changes."""
    told: dict[str, Any] = {}
    for flag, value in flat_settings(init_args).items():
        name = flag.replace(".class_path", "").replace("init_args.", "")
        group, _, inner = name.partition(".")
        if group != "optimizer" or inner in ("", "lr", "weight_decay", "momentum"):
            told[name] = str(value).rpartition(".")[2] if flag.endswith("class_path") else value
    return told
