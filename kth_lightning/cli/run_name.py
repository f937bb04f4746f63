"""The name of a run's folder where none is given: the same for the same command, wherever it is typed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import read_split, split_hashes

PLACES = (
    "data.root", "data.archive", "data.table", "data.boxes", "data.test_root", "data.source", "data.sample_size",
    "data.sample_sites", "data.cache_dir", "data.splits", "data.corrections", "data.ignore_new",
    "model.init_args.weights", "model.init_args.init_head_from",
)  # fmt: skip
"""Settings that say where something lies: what lies there is compared instead, by its content."""

HARDWARE = ("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy")
"""Settings that say what computes: the figures stay the same but for rounding."""

_UNNAMED = ("data.cache_dir", "data.ignore_new", *HARDWARE)


def is_one_of(key: str, names: tuple[str, ...]) -> bool:
    """Tell whether a flag is one of these, or a part of one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def settings_hash(settings: Mapping[str, Any], paths: bool) -> str:
    """Return a hash of the settings that make a run, as they were given, whatever computes it.

    Args:
        settings: Flat.
        paths: Whether other paths of images and weights make another hash, however they are spelled.
    """
    kept = {}
    for key, value in settings.items():
        if is_one_of(key, _UNNAMED):
            continue
        if key == "data.splits" and value is not None:
            kept[key] = split_hashes(read_split(Path(value).expanduser()))["split"]
        elif paths or not is_one_of(key, PLACES):
            kept[key] = _spelled(value) if is_one_of(key, PLACES) else value
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def default_run_dir(class_path: str, settings: Mapping[str, Any]) -> Path:
    """Name the folder of a run.

    Args:
        class_path: Of the model.
        settings: As they were given, flat.
    """
    return Path("runs") / f"{_kind(class_path)}-{settings_hash(settings, paths=True)[:10]}"


def runs_alike(class_path: str, settings: Mapping[str, Any]) -> list[RunFolder]:
    """List the runs with default names that began with the same settings, wherever their images were.

    Args:
        class_path: Of the model.
        settings: As they were given, flat.
    """
    wanted = settings_hash(settings, paths=False)
    runs = (RunFolder(path) for path in sorted(Path("runs").glob(f"{_kind(class_path)}-*")))
    return [run for run in runs if _start(run).get("settings") == wanted]


def _start(run: RunFolder) -> Mapping[str, Any]:
    try:
        return run.read_start()
    except InputError:
        return {}


def _kind(class_path: str) -> str:
    return class_path.rsplit(".", 1)[-1].lower()


def _spelled(value: Any) -> Any:
    """Spell a path in one way: from here where it lies below, so that a folder may move with its runs."""
    if not isinstance(value, str) or not Path(value).expanduser().exists():
        return value
    path = Path(value).expanduser().resolve()
    here = Path.cwd().resolve()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
