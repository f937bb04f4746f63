"""Class activation maps: which places of an image speak for a class."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from kth_lightning.errors import InputError
from kth_lightning.models.base import Classifier

Classes = Tensor | Literal["all", "predicted"]


def activation_maps(model: Classifier, images: Tensor, classes: Classes = "all") -> tuple[Tensor, Tensor]:
    """Classify images and say what each place of them adds to a class's logit above the mean of all logits.

    Only differences of logits reach the probabilities. What a place adds to all classes alike says nothing, and can be
    most of a plain map: so the mean over the classes is taken off.

    Where the model says so (`Classifier.class_activation`), the maps are exact (Zhou et al., "Learning Deep Features
    for Discriminative Localization", 2016): its dense layer is applied to every place before the average, and the mean
    of a map over its places is the logit less the mean logit. For other networks they are Grad-CAM's (Selvaraju et
    al., 2017), not negative and of no unit, at one pass forth and back for every column of `classes`: then ask for the
    few that are needed. Where the model looks at mirror images too, its maps are averaged as its logits are.

    The model runs in evaluation mode, its modes and hooks are restored, and no gradient is kept. Under mixed precision
    the network uses it, as in training; the dense layer and all that Grad-CAM computes are float32.

    Args:
        model: The classifier.
        images: Square RGB images [B, 3, H, W] of any dtype in 0..255, on the model's device.
        classes: Which maps to return: those of "all" classes in the order of the logits, of the "predicted" class (one
            map an image), or of these classes for each image, int64 [B, k].

    Returns:
        Logits float32 [B, C], and maps float32 [B, C, h, w], [B, 1, h, w] or [B, k, h, w], some 32 times smaller than
        the images.

    Raises:
        InputError: The network has no maps, such as a plain vision transformer.
    """
    with _evaluating(model):
        exact = model.class_activation()
        if exact is None:
            return _grad_cam(model, images, classes)
        with torch.no_grad():
            return _cam(model, *exact, images, classes)


def class_maps(dense: nn.Module, looks: Sequence[Tensor]) -> Tensor:
    """Return the exact map of every class, float32 [B, C, h, w].

    Args:
        dense: From averages [..., D] to logits [..., C].
        looks: What the global average takes, [B, D, h, w]: of the images and, where the model looks at them, of their
            mirror images.
    """
    unpooled = looks[0] if len(looks) == 1 else (looks[0] + looks[1].flip(3)) / 2
    with torch.autocast(unpooled.device.type, enabled=False):
        return _centred(dense(unpooled.float().movedim(1, -1)).movedim(-1, 1))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _cam(
    model: Classifier, pool: nn.Module, dense: nn.Module, images: Tensor, classes: Classes
) -> tuple[Tensor, Tensor]:
    pooled: list[Tensor] = []
    hook = pool.register_forward_hook(lambda module, inputs, output: pooled.append(inputs[0]))
    try:
        logits = model(images)
    finally:
        hook.remove()
    maps = class_maps(dense, pooled)
    return logits, maps[torch.arange(len(maps), device=maps.device)[:, None], _columns(logits, classes)]


def _grad_cam(model: Classifier, images: Tensor, classes: Classes) -> tuple[Tensor, Tensor]:
    from captum.attr import LayerGradCam

    # Tensors of inference mode, which Lightning tests in, take no part in a gradient: hence the clones.
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(images.device.type, enabled=False),
    ):
        inputs = images.clone().float().requires_grad_()
        layer = _layer_of_maps(model, inputs[:1])
        with torch.no_grad():
            logits = model(inputs)
        chosen = _columns(logits, classes).clone()
        method = LayerGradCam(lambda inputs: _with_gradient(model, inputs), layer)

        def attribute(inputs: Tensor) -> Tensor:
            columns = [method.attribute(inputs, target, relu_attributions=True).detach() for target in chosen.unbind(1)]
            return torch.cat(columns, dim=1).float()

        maps = attribute(inputs)
        if model.tta_flip:
            maps = (maps + attribute(inputs.flip(3)).flip(3)) / 2
    return logits, maps


def _with_gradient(model: Classifier, images: Tensor) -> Tensor:
    """Give the logits less their mean, without cutting the gradient off at the trunk."""
    inputs = model.preprocess(images)
    return _centred(model.tail(inputs if model.trunk is None else model.trunk(inputs)).float())


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(1, keepdim=True)


def _columns(logits: Tensor, classes: Classes) -> Tensor:
    if isinstance(classes, Tensor):
        return classes.to(logits.device)
    if classes == "predicted":
        return logits.argmax(1, keepdim=True)
    return torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)


def _layer_of_maps(model: Classifier, image: Tensor) -> nn.Module:
    """Return the last module that still tells the places of an image apart, where it gives maps."""
    spatial: list[tuple[nn.Module, torch.Size]] = []

    def note(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim > 2 and output.shape[2:].numel() > 1:
            spatial.append((module, output.shape))

    before = set(model.preprocess.modules())
    hooks = [module.register_forward_hook(note) for module in model.modules() if module not in before]
    try:
        with torch.no_grad():
            model(image)
            inputs = model.preprocess(image)
    finally:
        for hook in hooks:
            hook.remove()
    layer, shape = spatial[-1] if spatial else (model, torch.Size())
    if len(shape) != 4 or not _are_alike(shape[2:], inputs.shape[2:]):
        raise InputError(
            "--ckpt_path: this network has no maps [B, D, h, w], of about its images' shape, before it pools them, so "
            "there is nothing to show; a network that keeps height and width up to there has them"
        )
    return layer


def _are_alike(maps: Sequence[int], images: Sequence[int]) -> bool:
    """Tell maps of a shape like the images' from tokens [N, D], and from maps that keep their channels last."""
    if len(images) != 2 or images[0] == images[1]:
        return maps[0] == maps[1]
    return 0.5 <= (maps[0] / maps[1]) / (images[0] / images[1]) <= 2  # what a step rounds away makes much of few places
