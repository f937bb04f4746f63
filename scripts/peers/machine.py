"""The machine that is measured on."""

import os
import platform
import time
from pathlib import Path
from typing import Any

import torch


def describe_machine() -> dict[str, Any]:
    """Describe this machine, and how fast it multiplies matrices."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "matmul_flops_per_second": matmul_peaks(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def matmul_peaks() -> dict[str, float]:
    """Return the operations a second of the fastest of some matrix multiplications, in each precision."""
    on_gpu = torch.cuda.is_available()
    together = 50 if on_gpu else 1  # as many as hide the start of the first
    peaks = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        peaks[name] = 0.0
        for side in (1024, 2048, 4096, *([8192] if on_gpu else [])):
            left, right = (torch.rand(side, side, device="cuda" if on_gpu else "cpu").to(dtype) for _ in range(2))
            end = time.perf_counter() + 1
            while (started := time.perf_counter()) < end:
                for _ in range(together):
                    left @ right
                if on_gpu:
                    torch.cuda.synchronize()
                spent = time.perf_counter() - started
                peaks[name] = max(peaks[name], 2 * side**3 * together / spent)
    return peaks
