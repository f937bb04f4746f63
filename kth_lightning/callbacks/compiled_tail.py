"""The callback that trains through `torch.compile`."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from kth_lightning.errors import InputError
from kth_lightning.io.terminal import print_rank_zero
from kth_lightning.models import Classifier


class CompiledTail(L.Callback):
    """Compile what the classifier's `tail` computes in a training step, forwards and backwards, with `torch.compile`.

    The first step, and a last batch that is smaller, take seconds to a minute to compile. Figures are those without it
    to rounding, but for dropout, whose masks are drawn otherwise. Validation, test and prediction compute as they do
    without it. `mode="reduce-overhead"` captures CUDA graphs, which hold the gradients
    of one step only: it does not go with `--trainer.accumulate_grad_batches`.

    Args:
        mode: Of `torch.compile`.

    Raises:
        InputError: Training begins, and the tail cannot be compiled here, or gradients are accumulated in graphs.
    """

    def __init__(self, mode: str = "default") -> None:
        self.mode = mode

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Wrap the tail; compiling itself begins with the first step."""
        assert isinstance(pl_module, Classifier)
        if self.mode == "reduce-overhead" and trainer.accumulate_grad_batches > 1:
            raise InputError(
                f"CompiledTail: mode reduce-overhead does not go with --trainer.accumulate_grad_batches "
                f"{trainer.accumulate_grad_batches}; give mode default"
            )
        try:
            compiled = torch.compile(pl_module.tail, mode=self.mode, dynamic=False)
        except RuntimeError as error:
            raise InputError(f"CompiledTail: mode {self.mode!r}: {str(error).splitlines()[0]}") from None
        print_rank_zero(f"compiling the tail of {type(pl_module).__name__} in the first step")

        def tail(features: Tensor) -> Tensor:
            try:
                return compiled(features)
            except Exception as error:
                if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    raise  # of the tail itself
                reason = str(error).strip().splitlines()[0]
                raise InputError(
                    f"CompiledTail: torch cannot compile the tail of {type(pl_module).__name__} here ({reason}); leave "
                    "the callback out"
                ) from None

        self._tail = tail

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Take the compiled tail for this step."""
        vars(pl_module)["tail"] = self._tail

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Go back to the tail as it is."""
        del vars(pl_module)["tail"]

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the model as it was."""
        vars(pl_module).pop("tail", None)
