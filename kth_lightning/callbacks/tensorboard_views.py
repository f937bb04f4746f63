"""The callback that shows in TensorBoard what TensorBoard alone can show."""

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import nn

from kth_lightning.callbacks.as_in_evaluation import as_in_evaluation
from kth_lightning.callbacks.cam_snapshots import inputs_of
from kth_lightning.callbacks.image_data import image_data, spread
from kth_lightning.callbacks.logged_figures import FIGURES
from kth_lightning.callbacks.tensorboard_logger import RunTensorBoard
from kth_lightning.drawing.attempt import attempt
from kth_lightning.drawing.names import class_numbers
from kth_lightning.explain.contact_sheet import resized
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import Classifier
from kth_lightning.stores.store import CLEAN

_POINTS = 1000
_THUMBNAIL = 48
_BATCH = 32


def _harmless(show: Callable[..., None]) -> Callable[..., None]:
    """Have a failure to show something cost the run nothing."""

    @wraps(show)
    def harmless(*args: Any) -> None:
        with attempt(f"TensorBoard will lack the {show.__name__.removeprefix('_show_').replace('_', ' ')}"):
            show(*args)

    return harmless


@contextmanager
def _without_mirror(model: Classifier) -> Iterator[None]:
    """Have a network run once, where it looks at mirror images too."""
    mirrored, model.tta_flip = model.tta_flip, False
    try:
        yield
    finally:
        model.tta_flip = mirrored


class TensorBoardViews(L.Callback):
    """Show the network as a graph, training and test in one chart, and the test images' features as points.

    Args:
        run: The folder; the test predictions are read from it.
        board: The run's.
    """

    def __init__(self, run: RunFolder, board: RunTensorBoard) -> None:
        self.run = run
        self.board = board

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the network, and set up the charts."""
        if trainer.is_global_zero and trainer.current_epoch == 0:
            self._show_layout()
            self._show_class_numbers(trainer)
            self._show_graph(trainer, pl_module)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the test images, once their predictions are written."""
        if trainer.is_global_zero:
            self._show_embedding(trainer, pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the file of events behind the test, the last that is written."""
        if stage == "test":
            self.board.close()

    @_harmless
    def _show_layout(self) -> None:
        charts = {
            title: ["Multiline", [f"{part}/{name}$" for part in ("train", "val", "test")]]
            for name, title in FIGURES.items()
        }
        self.board.experiment.add_custom_scalars({"training, validation and test": charts})

    @_harmless
    def _show_class_numbers(self, trainer: L.Trainer) -> None:
        if numbers := class_numbers(image_data(trainer).class_names):
            lines = [f"- #{index} is {name}" for index, name in numbers.items()]
            self.board.experiment.add_text("class numbers", "\n".join(["In the images:", "", *lines]))

    @_harmless
    def _show_graph(self, trainer: L.Trainer, model: Classifier) -> None:
        data = image_data(trainer)
        image = data.images(spread(data.split.indices("train"), 1), torch.tensor([CLEAN]), model.device)
        with warnings.catch_warnings(), as_in_evaluation(trainer, model), _without_mirror(model):
            # Tracing warns of all that it will fix, and is deprecated; TensorBoard's graph has no other way.
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(model, image, check_trace=False)  # TensorBoard's own trace runs the network again
            self.board.experiment.add_graph(traced, image)

    @_harmless
    def _show_embedding(self, trainer: L.Trainer, model: Classifier) -> None:
        data, predicted = image_data(trainer), self.run.read_predictions()
        shown = predicted.names
        chosen = spread(np.arange(len(shown)), _POINTS).tolist()
        position = {image.name: number for number, image in enumerate(data.catalogue.images)}
        index = torch.tensor([position[shown[row]] for row in chosen])
        store, vectors, thumbnails = data.features("test"), [], []
        dense = [module for module in model.modules() if isinstance(module, nn.Linear)]
        with as_in_evaluation(trainer, model), inputs_of(*dense) as taken:
            for some in index.split(_BATCH):
                clean = torch.full_like(some, CLEAN)
                images = data.images(some, clean, model.device)
                thumbnails.append(resized(images, _THUMBNAIL).cpu() / 255)
                features = model.features(images) if store is None else store.fetch(some, clean).to(model.device)
                taken.clear()
                logits = model.tail(features)
                vectors.append((taken[-1] if taken and taken[-1].ndim == 2 else logits).float().cpu())
        names, metadata = predicted.class_names, []
        for row in chosen:
            label, guess = predicted.labels[row], predicted.probabilities[row].argmax()
            verdict, confidence = "right" if guess == label else "wrong", f"{predicted.probabilities[row, guess]:.3f}"
            texts = [names[label], names[guess], verdict, confidence, shown[row]]
            metadata.append([" ".join(text.split()) for text in texts])  # a line break would begin another row
        shutil.rmtree(self.run.path / "projector", ignore_errors=True)  # of a test that was repeated
        self.board.experiment.add_embedding(
            torch.cat(vectors),
            metadata,
            torch.cat(thumbnails),
            global_step="projector",  # names the folder
            tag="test_features",
            metadata_header=["label", "prediction", "verdict", "confidence", "path"],
        )
