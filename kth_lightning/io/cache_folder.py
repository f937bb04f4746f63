"""The folder of what is computed once and kept."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder(named: str | None = None) -> Path:
    """Return the folder for archives and stores: the named one, KTH_LIGHTNING_CACHE, or the user's cache folder."""
    if named:
        return Path(named).expanduser().resolve()
    return Path(os.environ.get("KTH_LIGHTNING_CACHE") or user_cache_path("kth_lightning"))
