"""Mixed precision where the hardware has it."""

from collections.abc import Mapping

import torch


def choose_precision(accelerator: str) -> str:
    """Return the trainer's precision for an accelerator.

    bfloat16 on GPUs since Ampere and on CPUs with AVX-512 BF16 or AMX; float16 on older GPUs; else float32.

    Args:
        accelerator: As given to the trainer, "auto" included.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.backends.mps.is_available())
    # Versions of torch that cannot say what a CPU has train in float32 there.
    has: Mapping[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16-mixed" if on_cpu and (has.get("avx512_bf16") or has.get("amx_bf16")) else "32-true"
