"""A model that is looked at in the middle of its training."""

from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
import torch
from torch import nn


@contextmanager
def as_in_evaluation(trainer: L.Trainer, model: nn.Module) -> Iterator[None]:
    """Run a model as in evaluation, without gradients, and leave it as it was."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(False), torch.no_grad(), trainer.precision_plugin.forward_context():
            yield
    finally:
        model.train(training)
