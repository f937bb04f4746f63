"""Take part in the benchmark with plain PyTorch and timm, as in PyTorch's transfer learning tutorial."""

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch_networks import build
from torchvision import datasets, transforms
from turns import Turns, read_task


def main() -> None:
    """Train until the benchmark has seen enough."""
    task = read_task()
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    turns = Turns(torch.cuda.synchronize if torch.cuda.is_available() else lambda: None)
    model = build(task["case"], task["classes"]).to(device)
    trained = [item for item in model.parameters() if item.requires_grad]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} cpu"
    turns.ready(sum(item.numel() for item in trained), name)
    if task["case"] == "extraction":
        extract(task, model, device, turns)
    elif task["case"] == "head":
        train_head(task, model, device, turns)
    else:
        train(task, model, device, turns)


def optimiser(case: str, model: nn.Module) -> torch.optim.Optimizer:
    """Make the article's optimiser."""
    trained = [item for item in model.parameters() if item.requires_grad]
    if case == "finetune":
        return torch.optim.SGD(trained, lr=1e-4, momentum=0.9)
    return torch.optim.RMSprop(trained, lr=1e-3, alpha=0.9, eps=1e-7)


def loader(task: dict[str, Any], augmented: bool) -> DataLoader:
    """Read the images from their files in every epoch, in two processes."""
    size = task["image_size"]
    drawn = [
        transforms.RandomAffine(10, scale=(0.8, 1.2), shear=11.46),  # degrees: .2 radians
        transforms.RandomHorizontalFlip(),
    ]
    steps = transforms.Compose(
        [
            transforms.Resize((size, size)),
            *(drawn if augmented else []),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    images = datasets.ImageFolder(str(Path(task["images"]) / "train"), steps)
    return DataLoader(images, batch_size=task["batch_size"], shuffle=augmented, num_workers=2)


def epochs(batches: DataLoader, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Go through the images again and again."""
    while True:
        for inputs, labels in batches:
            yield inputs.to(device), labels.to(device)


def train(task: dict[str, Any], model: nn.Module, device: torch.device, turns: Turns) -> None:
    """Train on augmented images."""
    criterion, steps = nn.CrossEntropyLoss(), optimiser(task["case"], model)
    model.train()
    running_loss, running_corrects = 0.0, torch.zeros((), device=device)
    for inputs, labels in epochs(loader(task, augmented=True), device):
        steps.zero_grad()
        with torch.set_grad_enabled(True):
            outputs = model(inputs)
            predicted = outputs.argmax(1)
            loss = criterion(outputs, labels)
            loss.backward()
            steps.step()
        running_loss += loss.item() * inputs.size(0)
        running_corrects += torch.sum(predicted == labels.data)
        turns.step(len(inputs))


def extract(task: dict[str, Any], model: nn.Module, device: torch.device, turns: Turns) -> None:
    """Compute the features of clean images."""
    model.eval()
    with torch.no_grad():
        for inputs, _ in epochs(loader(task, augmented=False), device):
            model(inputs).cpu()
            turns.step(len(inputs))


def train_head(task: dict[str, Any], model: nn.Module, device: torch.device, turns: Turns) -> None:
    """Train on features in memory by the barest loop: no loader, no figures, no validation."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(task["train"], 512, generator=generator).to(device)
    labels = torch.randint(task["classes"], (task["train"],), generator=generator).to(device)
    criterion, steps = nn.CrossEntropyLoss(), optimiser("head", model)
    model.train()
    while True:
        for chosen in torch.randperm(len(features), device=device).split(task["batch_size"]):
            loss = criterion(model(features[chosen]), labels[chosen])
            steps.zero_grad()
            loss.backward()
            steps.step()
        turns.step(len(features))


if __name__ == "__main__":
    main()
