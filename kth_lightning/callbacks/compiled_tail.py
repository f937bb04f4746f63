"""The callback that trains through `torch.compile`."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from kth_lightning.errors import InputError
from kth_lightning.io.terminal import print_rank_zero
from kth_lightning.models import Classifier

_CAPTURING = ("reduce-overhead", "max-autotune")
"""Modes that capture CUDA graphs."""


class CompiledTail(L.Callback):
    """Compile what the classifier's `tail` computes in a training step, forwards and backwards, with `torch.compile`.

    The first step, and a last batch that is smaller, take seconds to a minute to compile. Figures are those without it
    to rounding, but for dropout, whose masks are drawn otherwise. Validation, test and prediction compute as they do
    without it.

    On a GPU the modes `reduce-overhead` and `max-autotune` capture CUDA graphs. Their gradients last for one step: they
    do not go with `--trainer.accumulate_grad_batches`, and are gone when other callbacks' `on_train_batch_end` looks.

    Args:
        mode: Of `torch.compile`.

    Raises:
        InputError: Training begins, and the tail cannot be compiled here, or gradients are accumulated in graphs.
    """

    def __init__(self, mode: str = "default") -> None:
        self.mode = mode
        self._capturing = False
        self._own: dict[str, Any] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put a tail that is compiled in training in the place of the model's; compiling begins with the first step."""
        assert isinstance(pl_module, Classifier)
        self._capturing = self.mode in _CAPTURING and pl_module.device.type == "cuda"
        torch.compiler.reset()  # a process that trains many models would otherwise reach torch's limit of versions
        device, plain = pl_module.device.type, pl_module.tail
        given, dtype = False, torch.float32

        def cast(features: Tensor) -> Tensor:
            with torch.autocast(device, dtype, enabled=given):
                return plain(features)

        try:
            compiled = torch.compile(cast, mode=self.mode, dynamic=False)
        except RuntimeError as error:
            raise InputError(f"CompiledTail: mode {self.mode!r}: {str(error).splitlines()[0]}") from None

        def tail(features: Tensor) -> Tensor:
            nonlocal given, dtype
            if not (pl_module.training and torch.is_grad_enabled()):
                return plain(features)
            given, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
            # Compiled inside mixed precision, all of the backward pass would be cast too.
            with torch.autocast(device, enabled=False):
                logits = compiled(features)
            return logits.clone() if self._capturing else logits  # which the next step overwrites

        print_rank_zero(f"compiling the tail of {type(pl_module).__name__} in the first step")
        self._own = {name: value for name, value in vars(pl_module).items() if name == "tail"}
        vars(pl_module)["tail"] = tail

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Let the graphs of the step before go."""
        if not self._capturing:
            return
        if trainer.accumulate_grad_batches > 1:
            raise InputError(
                f"CompiledTail: mode {self.mode} does not go with --trainer.accumulate_grad_batches "
                f"{trainer.accumulate_grad_batches}; give mode default"
            )
        torch.compiler.cudagraph_mark_step_begin()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Drop gradients that lie in a graph's memory."""
        if self._capturing:
            pl_module.zero_grad()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the model as it was."""
        vars(pl_module).pop("tail", None)
        vars(pl_module).update(self._own)
        if self._capturing:
            pl_module.zero_grad()
        torch.compiler.reset()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the model as it was, and say it in one sentence where compiling failed.

        Raises:
            InputError: The exception is torch's compiler's.
        """
        self.on_fit_end(trainer, pl_module)
        if type(exception).__module__.startswith(("torch._dynamo", "torch._inductor")):
            reason = str(exception).strip().splitlines()[0]
            raise InputError(
                f"CompiledTail: torch cannot compile the tail of {type(pl_module).__name__} here ({reason}); leave the "
                "callback out"
            ) from None
