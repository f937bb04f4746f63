"""The peers, and an environment of its own for each."""

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from platformdirs import user_cache_path

from kth_lightning.errors import InputError


@dataclass(frozen=True)
class Peer:
    """Name what others would use.

    Attributes:
        worker: File in `peers/`.
        requirements: Of its environment; there is always Pillow, which reads the images of all.
        settings: Environment variables.
    """

    worker: str
    requirements: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)


KERAS = ("keras==3.15.1", "scipy==1.17.1")  # Keras augments images by SciPy
TORCH = ("torch==2.15.0", "torchvision==0.29.2", "timm==1.0.31")
TENSORFLOW = f"tensorflow{'[and-cuda]' if torch.cuda.is_available() else ''}==2.21.0"
PEERS = {
    "keras-tensorflow": Peer("keras_worker.py", (*KERAS, TENSORFLOW), {"KERAS_BACKEND": "tensorflow"}),
    "keras-torch": Peer("keras_worker.py", (*KERAS, TORCH[0]), {"KERAS_BACKEND": "torch"}),
    "fastai": Peer("fastai_worker.py", ("fastai==2.8.12", *TORCH)),
    "pytorch": Peer("pytorch_worker.py", TORCH),
    "tuned": Peer("tuned_worker.py", TORCH),
}


def make_environment(name: str, folder: Path | None) -> str:
    """Make a peer's environment where there is none.

    Args:
        name: A key of `PEERS`.
        folder: Where the environments lie; the user's cache folder where left out.

    Returns:
        Its Python.

    Raises:
        InputError: uv is missing, or could not make it.
    """
    position = (folder or user_cache_path("kth_lightning") / "peers").resolve() / name
    requirements = [*PEERS[name].requirements, "pillow==13.0.0"]
    python, whole = position / "bin" / "python", position / "requirements.txt"
    wanted = "\n".join([f"# Python {platform.python_version()}", *requirements]) + "\n"
    if whole.exists() and whole.read_text(encoding="utf-8") == wanted:
        return str(python)
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise InputError("uv is missing, which makes the peers' environments; pip install uv")
    print(f"{name}: installing {', '.join(requirements)} into {position}", file=sys.stderr, flush=True)
    for command in (
        ["venv", "--clear", "--quiet", "--python", sys.executable, str(position)],
        ["pip", "install", "--python", str(python), *requirements],
    ):
        if subprocess.run([uv, *command]).returncode:
            raise InputError(f"uv could not make the environment of {name} (its message is above)")
    whole.write_text(wanted, encoding="utf-8")
    return str(python)
