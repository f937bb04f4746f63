"""Configurations as flat tables of flags and values."""

from typing import Any


def flat_settings(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Name every setting of a configuration by its flag, such as model.init_args.lr; an empty mapping is a setting."""
    if not isinstance(settings, dict) or not settings:
        return {prefix: settings}
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flat_settings(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
