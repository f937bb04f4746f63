"""What Lightning does for nothing at every step, left out: it takes longer than a step of a small head itself."""

from contextlib import AbstractContextManager, nullcontext

import lightning as L
from lightning.pytorch.profilers import PassThroughProfiler

_EVERY_STEP = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_test_batch_start",
    "on_test_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)


class NoProfiler(PassThroughProfiler):
    """Measure nothing, with one context for all that is not measured; Lightning's own makes a new one at each hook."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Return a context that does nothing."""
        return self._nothing


def drop_idle_hooks(trainer: L.Trainer) -> None:
    """Have Lightning pass over the hooks of every step that a callback inherits, which do nothing.

    Lightning calls what can be called: with nine callbacks, some fifty such hooks a step.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for name in _EVERY_STEP:
            if is_idle(callback, name):
                setattr(callback, name, None)


def is_idle(callback: L.Callback, name: str) -> bool:
    """Tell whether a callback's hook does nothing."""
    return getattr(type(callback), name) is getattr(L.Callback, name)
