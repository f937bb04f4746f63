"""Take part in the benchmark with plain PyTorch and timm in a loop that was tuned by hand.

Beyond the tutorial's loop: bf16 where the device has it, channels_last, cuDNN's search for the fastest kernels, images
that stay bytes until they are on the device, processes that load them for all epochs and ahead, pinned memory, and no
step that waits for a GPU's figures.
"""

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pytorch_worker import optimiser, train_head
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch_networks import build
from torchvision import datasets, transforms
from turns import Turns, read_task

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Train until the benchmark has seen enough."""
    task = read_task()
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda:0" if on_gpu else "cpu")
    turns = Turns(torch.cuda.synchronize if on_gpu else lambda: None)
    turns.facts["precision"] = "bf16" if has_bf16(device) else "fp32"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    model = build(task["case"], task["classes"]).to(device, memory_format=torch.channels_last)
    trained = [item for item in model.parameters() if item.requires_grad]
    name = torch.cuda.get_device_name(device) if on_gpu else f"{platform.machine()} cpu"
    turns.ready(sum(item.numel() for item in trained), name)
    if task["case"] == "extraction":
        extract(task, model, device, turns)
    elif task["case"] == "head":
        train_head(task, model, device, turns)  # nothing of it gets faster: it has no images and hardly computes
    else:
        train(task, model, device, turns)


def has_bf16(device: torch.device) -> bool:
    """Tell whether a device multiplies in bf16 by itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the lowest PyTorch that may be here
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def loader(task: dict[str, Any], augmented: bool) -> DataLoader:
    """Read the images from their files in every epoch; beside a GPU with all cores but two."""
    size, on_gpu = task["image_size"], torch.cuda.is_available()
    drawn = [
        transforms.RandomAffine(10, scale=(0.8, 1.2), shear=11.46),  # degrees: .2 radians
        transforms.RandomHorizontalFlip(),
    ]
    steps = [transforms.Resize((size, size)), *(drawn if augmented else []), transforms.PILToTensor()]
    return DataLoader(
        datasets.ImageFolder(str(Path(task["images"]) / "train"), transforms.Compose(steps)),
        batch_size=task["batch_size"],
        shuffle=augmented,
        num_workers=max(2, (os.cpu_count() or 2) - 2) if on_gpu else 2,
        pin_memory=on_gpu,
        persistent_workers=True,
        prefetch_factor=8,
    )


def batches(task: dict[str, Any], device: torch.device, augmented: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Bring the images to the device as bytes, and normalise them there."""
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) * 255 for values in (MEAN, STD))
    files = loader(task, augmented)
    while True:
        for images, labels in files:
            inputs = (images.to(device, non_blocking=True).float() - mean) / std
            yield inputs.contiguous(memory_format=torch.channels_last), labels.to(device, non_blocking=True)


def train(task: dict[str, Any], model: nn.Module, device: torch.device, turns: Turns) -> None:
    """Train on augmented images."""
    criterion, steps = nn.CrossEntropyLoss(), optimiser(task["case"], model)
    model.train()
    for inputs, labels in batches(task, device, augmented=True):
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device)):
            outputs = model(inputs)
        loss = criterion(outputs.float(), labels)
        steps.zero_grad()
        loss.backward()
        steps.step()
        turns.step(len(inputs))


def extract(task: dict[str, Any], model: nn.Module, device: torch.device, turns: Turns) -> None:
    """Compute the features of clean images."""
    model.eval()
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device)):
        for inputs, _ in batches(task, device, augmented=False):
            model(inputs).cpu()
            turns.step(len(inputs))


if __name__ == "__main__":
    main()
