"""The callback that keeps torch to one thread where more of them only wait for each other."""

import lightning as L
import torch

from kth_lightning.callbacks.image_data import image_data


class OneThread(L.Callback):
    """Train on stored vectors with one thread, if that is done on a CPU.

    A step of such a head is a dozen operators of some ten microseconds: threads that share one spend longer on meeting
    than on working, much longer where other programs run beside. Everything else of a run, such as the features
    themselves, has as many threads as before.
    """

    def __init__(self) -> None:
        self._threads: int | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin, where the epoch reads vectors."""
        store = image_data(trainer).features("train") if pl_module.device.type == "cpu" else None
        if store is not None and len(store.shape) == 1:
            self._threads = torch.get_num_threads()
            torch.set_num_threads(1)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End before the epoch's pictures are made."""
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave torch as it was."""
        self._restore()

    def _restore(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
            self._threads = None
