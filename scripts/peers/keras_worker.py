"""Take part in the benchmark with Keras 3, on TensorFlow or PyTorch, as the article did with Keras 2."""

import math
import platform
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from keras.src.legacy.preprocessing.image import ImageDataGenerator
from turns import Turns, read_task


class TakeTurns(keras.callbacks.Callback):
    """Call the clock after every batch or epoch.

    Args:
        task: What the benchmark wants measured.
        turns: The clock.
    """

    def __init__(self, task: dict[str, Any], turns: Turns) -> None:
        super().__init__()
        self.task = task
        self.turns = turns

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Count a step."""
        if self.task["unit"] == "batch":
            self.turns.step(min(self.task["batch_size"], self.task["train"] - batch * self.task["batch_size"]))

    def on_predict_batch_end(self, batch: int, logs: object = None) -> None:
        """Count a batch of extracted features."""
        self.on_train_batch_end(batch)

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Count the epoch that has ended, with its validation and what it saved."""
        if self.task["unit"] == "epoch" and epoch:
            self.turns.step(self.task["train"])


def main() -> None:
    """Train until the benchmark has seen enough."""
    task = read_task()
    device, synchronise = find_device()
    turns = Turns(synchronise)
    model = build(task["case"], task["classes"], task["image_size"])
    turns.ready(sum(math.prod(item.shape) for item in model.trainable_variables), device)
    forever, callbacks = 10**6, [TakeTurns(task, turns)]
    if task["case"] == "extraction":
        generator = images(task, augmented=False)
        while True:
            model.predict(generator, verbose=0, callbacks=callbacks)
    elif task["case"] == "head":
        (features, labels), validation = maps(task, task["train"]), maps(task, task["val"])
        saved = str(Path(task["folder"]) / "best.keras")
        callbacks = [
            keras.callbacks.ModelCheckpoint(saved, save_best_only=True),
            keras.callbacks.EarlyStopping(patience=forever),
            *callbacks,
        ]
        model.fit(
            features,
            labels,
            batch_size=task["batch_size"],
            epochs=forever,
            validation_data=validation,
            callbacks=callbacks,
            verbose=0,
        )
    else:
        model.fit(images(task, augmented=True), epochs=forever, callbacks=callbacks, verbose=0)


def find_device() -> tuple[str, Any]:
    """Return the name of the device that Keras works on, and what waits for it."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            details = tf.config.experimental.get_device_details(gpus[0])
            return details.get("device_name", "GPU"), tf.test.experimental.sync_devices
    else:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name(), torch.cuda.synchronize
    return f"{platform.machine()} cpu", lambda: None


def build(case: str, classes: int, size: int) -> keras.Model:
    """Make the network of a case, its weights random, ready to be trained as in the article."""
    optimiser: keras.optimizers.Optimizer = keras.optimizers.RMSprop(1e-3, rho=0.9, epsilon=1e-7)
    if case == "extraction":
        return keras.applications.VGG19(weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3))
    if case == "head":
        # As in the article, whose top model pools the maps that it is given.
        stages = [keras.Input((size // 32, size // 32, 512)), layers.GlobalAveragePooling2D(), layers.Dropout(0.7)]
    elif case == "benchmark":
        stages = [keras.Input((size, size, 3))]
        for width, dropout in ((64, 0.0), (128, 0.0), (256, 0.0), (512, 0.5), (512, 0.4)):
            stages += [layers.Conv2D(width, 3, padding="same", activation="relu"), layers.MaxPooling2D()]
            stages += [layers.Dropout(dropout)] if dropout else []
        stages += [layers.GlobalAveragePooling2D(), layers.Dropout(0.3)]
    else:
        network = keras.applications.VGG19(weights=None, include_top=False, input_shape=(size, size, 3))
        for layer in network.layers:
            layer.trainable = layer.name.startswith("block5")
        stages = [network, layers.GlobalAveragePooling2D(), layers.Dropout(0.7)]
        optimiser = keras.optimizers.SGD(1e-4, momentum=0.9)
    model = keras.Sequential([*stages, layers.Dense(classes, activation="softmax")])
    model.compile(optimiser, "categorical_crossentropy", metrics=["accuracy"])
    return model


def images(task: dict[str, Any], augmented: bool) -> Any:
    """Read the images from their files in every epoch."""
    drawn = {"rotation_range": 10, "shear_range": math.degrees(0.2), "zoom_range": 0.2, "horizontal_flip": True}
    return ImageDataGenerator(rescale=1 / 255, **(drawn if augmented else {})).flow_from_directory(
        str(Path(task["images"]) / "train"),
        target_size=(task["image_size"], task["image_size"]),
        batch_size=task["batch_size"],
        class_mode="categorical" if augmented else None,
        shuffle=augmented,
    )


def maps(task: dict[str, Any], number: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw VGG19's last maps and labels: their values make no difference to the time."""
    rng, side = np.random.default_rng(number), task["image_size"] // 32
    labels = rng.integers(task["classes"], size=number)
    return rng.random((number, side, side, 512), dtype=np.float32), keras.utils.to_categorical(labels, task["classes"])


if __name__ == "__main__":
    main()
