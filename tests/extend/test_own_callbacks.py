from collections import Counter
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import yaml

from kth_lightning.cli.main import main
from kth_lightning.data.module import ImageData
from kth_lightning.models import BenchmarkCNN

COUNTING = """
from collections import Counter
import lightning as L

COUNTS = Counter()


def counting(kind, name):
    def hook(*args):
        trainer = next(item for item in args if isinstance(item, L.Trainer))
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            COUNTS[kind, name] += 1

    return hook


HOOKS = [name for name in dir(L.Callback) if name.startswith("on_") and "checkpoint" not in name]
Subclass = type("Subclass", (L.Callback,), {name: counting("subclass", name) for name in HOOKS})
count_batch_start, count_batch_end = (counting("lambda", f"on_train_batch_{when}") for when in ("start", "end"))


class OnInstance(L.Callback):
    def __init__(self):
        for name in HOOKS:
            setattr(self, name, counting("instance", name))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [[], ["--trainer.val_check_interval", "2", "--trainer.accumulate_grad_batches", "2"]], ids=["", "midway"]
)
def test_every_hook_fires_as_often_as_in_a_plain_trainer(
    flags: list[str], images: Path, tmp_path: Path, mine: Callable, tiny_fit: Callable
) -> None:
    mine(COUNTING)
    import mine as module

    config = {
        "trainer": {
            "callbacks": [
                {"class_path": "mine.Subclass"},
                {"class_path": "mine.OnInstance"},
                {
                    "class_path": "LambdaCallback",
                    "init_args": {
                        "on_train_batch_start": "mine.count_batch_start",
                        "on_train_batch_end": "mine.count_batch_end",
                    },
                },
            ]
        }
    }
    (tmp_path / "callbacks.yaml").write_text(yaml.safe_dump(config))
    data = ["--data.root", images, "--data.batch_size", 8]
    main(tiny_fit(tmp_path / "run", *data, "--config", tmp_path / "callbacks.yaml", *flags))
    counted = Counter(module.COUNTS)
    module.COUNTS.clear()
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=2, logger=False, enable_checkpointing=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[module.Subclass()],
        **{flag.removeprefix("--trainer."): int(value) for flag, value in zip(flags[::2], flags[1::2], strict=True)},
    )  # fmt: skip
    model = BenchmarkCNN(3, filters=(4, 8), block_dropout=(0.0, 0.0), image_size=32)
    trainer.fit(model, datamodule=ImageData(root=str(images), image_size=32, batch_size=8))
    documented = {name: count for (_, name), count in module.COUNTS.items()}
    assert documented["on_train_batch_end"] == 12
    assert documented["on_before_backward"] == 12
    assert {name: count for (kind, name), count in counted.items() if kind == "subclass"} == documented
    assert {name: count for (kind, name), count in counted.items() if kind == "instance"} == documented
    assert {name: count for (kind, name), count in counted.items() if kind == "lambda"} == {
        "on_train_batch_start": 12,
        "on_train_batch_end": 12,
    }
