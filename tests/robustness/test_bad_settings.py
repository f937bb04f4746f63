from collections.abc import Callable
from pathlib import Path

import pytest
from corpus import snapshot, tiny_fit

Refusal = Callable[..., str]
FIT = [
    ("--data.batch_size", "0", "give a whole number"),
    ("--data.batch_size", "nan", "Expected a int"),
    ("--data.batch_size", "1.5", "Expected a int"),
    ("--data.image_size", "-1", "give a whole number"),
    ("--data.image_size", "99999999", ""),
    ("--data.val_size", "nan", "given was nan"),
    ("--data.val_size", "-1", "there are 3 classes and each needs an image"),
    ("--data.val_size", "1000", "of 51 images to draw from, each of 3 classes keeps 1 for training; give 48 at most"),
    ("--data.test_size", "0.0", "there are 3 classes"),
    ("--data.split_seed", "-1", "give a whole number"),
    ("--data.num_folds", "1000", "has 20 images, fewer than folds; add some, or give 20"),
    ("--data.num_folds", "-2", "there are at least 2 folds, numbered from 0"),
    ("--data.fold", "-1", "needs --data.num_folds"),
    ("--data.views", "-1", "give a whole number"),
    ("--data.augmentation", "wild", "choose one of none, flip, blog, standard, strong"),
    ("--data.interpolation", "lanczos", "give one of nearest, bilinear, bicubic"),
    ("--data.resize", "stretch", "give one of squash, letterbox, crop"),
    ("--data.tta_flip", "perhaps", "Expected a bool"),
    ("--data.rooot", "x", "did you mean --data.root?"),
    ("--model.lr", "1", "did you mean --model.optimizer.lr?"),
    ("--model.optimizer.lr", "nan", "Expected a float; given was nan"),
    ("--model.optimizer.lr", "-1", "Invalid learning rate"),
    ("--model.optimizer.lrr", "1", "the class of --model.optimizer has no setting 'lrr'"),
    ("--model.filters", "[0,4]", "give at least one block, each with at least one filter"),
    ("--model.filters", "[-1,4]", "give at least one block, each with at least one filter"),
    ("--model.block_dropout", "[2,0]", "give a number from 0 to 1"),
    ("--model.block_dropout", "[0]", "2 blocks have 1 values; give one each"),
    ("--model.dropout", "-1", "give a number from 0 to 1"),
    ("--model.label_smoothing", "5", "give a number from 0 to 1"),
    ("--model.temperature", "0", "give a number above 0"),
    ("--model.mixup", "-1", "give 0 for none, or a number above it"),
    ("--model.optimizer", "Adan", "there is no class of this name; did you mean Adam"),
    ("--model.optimizer", "torch.optim.Adan", "the module torch.optim has no 'Adan'; did you mean torch.optim.Adam?"),
    ("--model.optimizer", "torch.nn.Linear", "this is not a subclass of Optimizer"),
    ("--model.lr_scheduler", "Cosin", "did you mean Cosine"),
    ("--model.lr_scheduler", "OneCycleLR", "its class needs more settings: --model.lr_scheduler.init_args.max_lr"),
    ("--model.loss", "torch.nn.CrossEntropyLos", "has no 'CrossEntropyLos'; did you mean torch.nn.CrossEntropyLoss?"),
    ("--model.loss", "torch.nn.CrossEntropyLoss", "gives a tensor of shape [] for 2 images, not one loss a row"),
    ("--model.loss", "torch.optim.SGD", "this is not a subclass of Module"),
    ("--model.loss", "nowhere.Focal", "there is no module 'nowhere'; "),
    ("--model.metrics", "{f1: MulticlassF1}", "did you mean MulticlassF1Score"),
    ("--model.metrics", "[MulticlassF1Score]", "give names and classes"),
    ("--model", "BenchmarkCN", "there is no class of this name; did you mean BenchmarkCNN"),
    ("--model", "kth_lightning.models.FeatureHed", "did you mean kth_lightning.models.FeatureHead?"),
    ("--model", "torch.nn.Linear", "this is not a subclass of Classifier"),
    ("--model.nope", "1", "the model has no setting 'nope'"),
]
PREPARE = [
    (["--data.sample_size", "0"], "--data.sample_size 0: give a whole number"),
    (["--data.sample_size", "10000000000000"], "--data.sample_size 10000000000000: give a whole number"),
    (["--data.sample_size", "7"], "--data.sample_size 7 leaves classes without an image; give at least 18"),
    (
        ["--data.source", "web"],
        "--data.source web: give one of sample, kth, folder, table, or a class such as mine.MySource",
    ),
    (["--data.source", "folder"], "--data.source folder needs --data.root DIR"),
    (["--data.source", "kth", "--data.root", "x"], "--data.root goes with --data.source folder"),
    (["--data.archive", "http://[::1"], "--data.archive: cannot download http://[::1 (Invalid IPv6 URL); try again"),
    (["--data.archive", "http://a b/c"], "--data.archive: cannot download"),
    (["--data.archive", "ftp://example.org/a.tar.gz"], "there is no file"),
    (["--data.root", "{root}", "--data.cache_dir", "/dev/null"], "name another folder with --data.cache_dir"),
    (["--data.root", "{root}", "--data.test_root", "{root}/class0"], "lies in --data.root"),
    (["--data.root"], "expected one argument"),
    (["--data.root", "{root}", "again"], "there is no setting --again"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("flag", "value", "sentence"), FIT, ids=[f"{flag} {value}" for flag, value, _ in FIT])
def test_a_setting_that_makes_no_sense_is_refused_by_its_flag(
    refusal: Refusal, images: Path, tmp_path: Path, flag: str, value: str, sentence: str
) -> None:
    kept = snapshot(images)
    line = refusal(*tiny_fit(images), "--run_dir", tmp_path / "run", flag, value)
    assert any(part in line for part in flag.removeprefix("--").split(".")[1:] or [flag])
    assert sentence in line
    assert not (tmp_path / "run/checkpoints").exists()
    assert snapshot(images) == kept


@pytest.mark.parametrize(("argv", "sentence"), PREPARE, ids=[" ".join(argv) for argv, _ in PREPARE])
def test_a_source_that_makes_no_sense_is_refused(
    refusal: Refusal, images: Path, argv: list[str], sentence: str
) -> None:
    assert sentence in refusal("prepare", *(word.format(root=images) for word in argv))


@pytest.mark.parametrize("command", ["pepare", "", "--root", "FIT"])
def test_a_verb_that_there_is_not_is_answered_with_those_there_are(refusal: Refusal, command: str) -> None:
    sentence = f"there is no command {command!r}; the commands are compare, learning_curve, prepare, explore, fit"
    assert sentence in refusal(command)
