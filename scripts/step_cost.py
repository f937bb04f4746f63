"""Count what one training step dispatches, beside the bare network's forward pass, backward pass and optimiser.

    python scripts/step_cost.py

A fast chip waits for the operators that Python hands it: their number, the tensors that are made on the host in a step
and those of a batch, which must be brought to a device whose memory does not hold the images, can be counted on any
machine. The step is that of the command `fit`, from the end of one batch to the end of the next, on the drawn sample
with random weights. The bare step is the same model's `tail` (and its trunk, where that runs in every step), the
cross-entropy and the same optimiser, on a batch that lies ready. All operators count that reach the dispatcher below
autograd; those that only look at a tensor in another way, for which a chip does nothing, are counted apart as views.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

import lightning as L
import torch
from tabulate import tabulate
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode  # the way that torch documents; it has no other name

from kth_lightning.cli.fit import TrainingCLI
from kth_lightning.data.batch import Batch
from kth_lightning.models import Classifier

SMALL = ("--data.image_size", "64")
RANDOM = ("--model.weights", "none")
CASES = {
    "benchmark": ["--config", "configs/benchmark.yaml", *SMALL],
    "head, stored": ["--config", "configs/head.yaml", *SMALL, *RANDOM, "--data.batch_size", "20"],
    "block 5, afresh": ["--config", "configs/finetune.yaml", *SMALL, *RANDOM, "--data.views", "null"],
    "block 5, stored": ["--config", "configs/finetune.yaml", *SMALL, *RANDOM, "--data.views", "1"],
}
COUNTED = 5
"""The step that is counted, when every tensor that is made once has been made."""


class Operators(TorchDispatchMode):
    """Count operators by name, and among them views and those that make a tensor from none."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.made = 0
        self.views = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one call."""
        self.names[func.overloadpacket.__name__] += 1
        self.views += func.is_view
        tensors = any(
            isinstance(item, Tensor) or (isinstance(item, Sequence) and any(isinstance(one, Tensor) for one in item))
            for item in (*args, *(kwargs or {}).values())
        )
        result = func(*args, **(kwargs or {}))
        self.made += not tensors and isinstance(result, Tensor)
        return result


class BothCounted(Exception):
    """What ends the run when there is nothing left to count."""


class CountStep(L.Callback):
    """Count one step, then the bare one, and end the run."""

    def __init__(self) -> None:
        self.whole, self.bare = Operators(), Operators()
        self.moved = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Begin behind one batch, and end behind the next."""
        assert isinstance(pl_module, Classifier)
        if batch_idx == COUNTED - 1:
            self.whole.__enter__()
        elif batch_idx == COUNTED:
            self.whole.__exit__(None, None, None)
            self.moved = sum(isinstance(value, Tensor) for value in batch.values())
            self._count_bare(trainer, pl_module, batch)
            raise BothCounted

    def _count_bare(self, trainer: L.Trainer, model: Classifier, batch: Batch) -> None:
        optimizer = trainer.optimizers[0]
        inputs, labels = batch.get("features", batch.get("images")), batch["label"]
        with self.bare, torch.enable_grad(), trainer.precision_plugin.forward_context():
            features = inputs if "features" in batch else model.features(inputs)
            cross_entropy(model.tail(features), labels).backward()
            optimizer.optimizer.step() if hasattr(optimizer, "optimizer") else optimizer.step()
            optimizer.zero_grad()


class Counted(TrainingCLI):
    """Carry out `fit` with one more callback, the last."""

    def __init__(self, flags: list[str], held: ExitStack, count: CountStep) -> None:
        self.count = count
        super().__init__(["fit", *flags], held)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Add the callback to those of every run."""
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.append(self.count)  # type: ignore[attr-defined]
        return trainer


def main() -> int:
    """Count every case and print a table; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="what to count (all)")
    parser.add_argument("--names", action="store_true", help="name the operators that the bare step does not have")
    options = parser.parse_args()
    rows = []
    for case in options.cases:
        count = CountStep()
        with tempfile.TemporaryDirectory() as folder, ExitStack() as held, suppress(BothCounted):
            Counted([*CASES[case], "--run_dir", f"{folder}/run", "--trainer.max_epochs", "1"], held, count)
        whole, bare = count.whole.names, count.bare.names
        beyond = [getattr(count.whole, what) - getattr(count.bare, what) for what in ("views", "made")]
        rows.append([case, whole.total(), bare.total(), whole.total() - bare.total(), *beyond, count.moved])
        if options.names:
            print(case, dict((whole - bare).most_common()))
    heads = ["a step of", "operators", "bare", "beyond", "views beyond", "tensors made beyond", "tensors of a batch"]
    print(tabulate(rows, heads, "github"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
