"""What computes a run, in words."""

import platform

import lightning as L
import torch


def device_name(trainer: L.Trainer) -> str:
    """Name a trainer's devices, such as "2 x NVIDIA H100" or "x86_64 cpu"."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} {device.type}"
    return f"{trainer.world_size} x {name}" if trainer.world_size > 1 else name
