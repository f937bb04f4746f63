"""The callback that lets the system end a run of several processes."""

import signal

import lightning as L


class EndsOnRequest(L.Callback):
    """Take the system's request to end (SIGTERM) as Ctrl-C is taken.

    Lightning's own handler tells the other processes at once, in the middle of whatever this one does, and waits for
    ever where they wait for something else of it.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the place of Lightning's handler, which it sets before each of its loops and takes back behind it."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)

    on_validation_start = on_train_start
    on_test_start = on_train_start
