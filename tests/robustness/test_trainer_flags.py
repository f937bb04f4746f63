import os
from collections.abc import Callable
from pathlib import Path

import pytest
from corpus import snapshot, tiny_fit

NOTHING = "nothing would be trained or tested; give more, or leave it out"
TOO_MANY = "there are {cores} CPU cores; give no more"

CASES: list[tuple[str, str, str]] = [
    ("--trainer.max_epochs", "0", NOTHING),
    ("--trainer.max_epochs", "-5", "must be a non-negative integer or -1"),
    ("--trainer.max_epochs", ".nan", "Expected a int"),
    ("--trainer.max_steps", "0", NOTHING),
    ("--trainer.max_time", "soon", "is not a valid duration"),
    ("--trainer.limit_train_batches", "0", NOTHING),
    ("--trainer.limit_train_batches", "-1", "invalid value -1 for limit_train_batches"),
    ("--trainer.limit_train_batches", "1.5", "invalid value 1.5 for limit_train_batches"),
    ("--trainer.limit_val_batches", "0", NOTHING),
    ("--trainer.limit_test_batches", "0", NOTHING),
    ("--trainer.check_val_every_n_epoch", "0", "--trainer.check_val_every_n_epoch 0: give a number of at least 1"),
    ("--trainer.check_val_every_n_epoch", "5", "a run of 1 epochs would not be validated once"),
    ("--trainer.val_check_interval", "99", "--trainer.val_check_interval 99: an epoch has 3 batches; give no more"),
    ("--trainer.val_check_interval", "0", "--trainer.val_check_interval 0: give a number above 0"),
    ("--trainer.max_steps", "2", "the run ends after 2 steps and its first validation comes after 3"),
    ("--trainer.overfit_batches", "1.5", "invalid value 1.5 for overfit_batches"),
    ("--trainer.fast_dev_run", "-1", "fast_dev_run=-1 is not a valid configuration"),
    ("--trainer.use_distributed_sampler", "true", "would count images twice and others never"),
    ("--trainer.sync_batchnorm", "true", "--trainer.sync_batchnorm: PyTorch has it on GPUs only; leave it out"),
    ("--trainer.enable_checkpointing", "false", "--trainer: "),
    ("--trainer.accelerator", "abacus", "invalid accelerator name: `accelerator='abacus'`"),
    ("--trainer.strategy", "luck", "invalid strategy name: `strategy='luck'`"),
    ("--trainer.devices", "0", "is not a valid input using cpu accelerator"),
    ("--trainer.devices", "-1", "should be an int > 0"),
    ("--trainer.devices", "many", "should be an int > 0"),
    ("--trainer.devices", str((os.cpu_count() or 1) + 1), TOO_MANY),
    ("--trainer.devices", "1000000", TOO_MANY),
    ("--trainer.num_nodes", "0", "`num_nodes` must be a positive integer"),
    ("--trainer.precision", "7", "--trainer.precision: Expected one of"),
    ("--trainer.precision", "16-true", "--trainer.precision 16-true: give 32-true, bf16-mixed or 16-mixed"),
    ("--trainer.precision", "64-true", "--trainer.precision 64-true: give 32-true, bf16-mixed or 16-mixed"),
    ("--trainer.accumulate_grad_batches", "0", "--trainer.accumulate_grad_batches 0: give a number of at least 1"),
    ("--trainer.accumulate_grad_batches", "-1", "--trainer.accumulate_grad_batches -1: give a number of at least 1"),
    ("--trainer.gradient_clip_val", "-1", "--trainer.gradient_clip_val -1: give a number of at least 0"),
    ("--trainer.profiler", "x", "`profiler`"),
    ("--seed_everything", "-1", "--seed_everything -1: give a whole number from 0 to 4294967295"),
    ("--seed_everything", "1e30", "--seed_everything: Expected a"),
    ("--seed_everything", "99999999999999999999", "--seed_everything 99999999999999999999: give a whole number from 0"),
    ("--patience", "0", "--patience 0: give a whole number of at least 1"),
    ("--patience", "-1", "--patience -1: give a whole number of at least 1"),
    ("--ema_decay", "2", "--ema_decay 2.0"),
    ("--model.optimizer", "LBFGS", "--model.optimizer: LBFGS wants whole data sets or sparse gradients"),
    ("--model.optimizer", "SparseAdam", "--model.optimizer: SparseAdam wants whole data sets or sparse gradients"),
    ("--model.init_args.num_classes", "7", "--model.init_args.num_classes cannot be chosen (it follows from the data"),
    ("--model.image_size", "48", "--model.init_args.image_size cannot be chosen (it follows from --data.image_size)"),
    ("--model.seed", "7", "--model.init_args.seed cannot be chosen (it follows from --seed_everything); leave it out"),
    ("--model.class_weights", "[1,2,3]", "cannot be chosen (it follows from --data.balance); leave it out"),
    ("--model.filters", "[1000000000,4]", "the memory is exhausted; give a smaller"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("flag", "value", "sentence"), CASES, ids=[f"{flag} {value}" for flag, value, _ in CASES])
def test_a_flag_that_cannot_be_meant_is_refused_before_anything_is_trained(
    flag: str, value: str, sentence: str, images: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    before = snapshot(images)
    line = refusal(*tiny_fit(images), "--run_dir", tmp_path / "run", flag, value)
    assert sentence.format(cores=os.cpu_count()) in line
    assert snapshot(images) == before
    assert not (tmp_path / "run").exists()


def test_no_time_for_an_epoch_is_said(images: Path, tmp_path: Path, refusal: Callable[..., str]) -> None:
    line = refusal(*tiny_fit(images), "--run_dir", tmp_path / "run", "--trainer.max_time", "00:00:00:00")
    assert f"nothing was trained in {tmp_path / 'run'}: training ended before its first epoch did" in line
