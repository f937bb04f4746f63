import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from kth_lightning.cli.main import main
from kth_lightning.data.module import ImageData
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder

MINE = """
    from pathlib import Path

    from kth_lightning import Candidate, Listing


    class MySource:
        def __init__(self, folder: str, members: int = 2):
            self.folder, self.members = Path(folder), members

        def list(self, cache_dir):
            files = self.folder.rglob("*.png")
            group = lambda file: f"{file.parent.name} {int(file.stem) // self.members}"
            return Listing(self.folder, [Candidate(file, file.parent.name, group=group(file)) for file in files])


    class NoSource:
        def __init__(self, folder: str = ""):
            pass


    class Bad(MySource):
        def list(self, cache_dir):
            files = [candidate.file for candidate in super().list(cache_dir).candidates]
            return {
                "list": [1],
                "nothing": Listing(self.folder, []),
                "relative": Listing(self.folder, [Candidate(Path("a.png"), "a")]),
                "unnamed": Listing(self.folder, [Candidate(self.folder / "a.png", "")]),
                "number": Listing(self.folder, [Candidate(self.folder / "a.png", 3)]),
                "part": Listing(self.folder, [Candidate(self.folder / "a.png", "a", subset="training")]),
                "twice": Listing(self.folder, [Candidate(file, str(i)) for i, file in enumerate(files[:1] * 2)]),
            }[self.folder.name]
"""

Mine = Callable[[str], None]
Refusal = Callable[..., str]


def parts(run: RunFolder) -> dict[str, str]:
    with run.splits.open(newline="", encoding="utf-8") as stream:
        return {row["path"]: row["part"] for row in csv.DictReader(stream)}


@pytest.mark.slow
def test_a_source_goes_the_whole_way_and_its_groups_stay_whole(
    mine: Mine, images: Path, tmp_path: Path, tiny_fit: Callable, whole_way: Callable
) -> None:
    mine(MINE)
    run = RunFolder(tmp_path / "run")
    own = ["--data.source", "mine.MySource", "--data.source.init_args.folder", images]
    whole_way(tiny_fit(run.path, *own), run)
    again = RunFolder(tmp_path / "again")
    main(["fit", "--config", str(run.config), "--run_dir", str(again.path)])
    for name in ("splits.csv", "predictions.csv"):
        assert (again.path / name).read_bytes() == (run.path / name).read_bytes()
    found = parts(run)
    assert len(found) == 60
    for name, part in found.items():
        label, number = name.removesuffix(".png").split("/")
        assert part == found[f"{label}/{int(number) // 2 * 2:03}.png"]


@pytest.mark.slow
def test_other_commands_take_the_same_flags(
    mine: Mine, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    mine(MINE)
    own = ["--data.source", "mine.MySource", "--data.source.folder", str(images)]
    main(["prepare", *own])
    assert "60 of 60 files usable in 3 classes" in capsys.readouterr().out
    main(["explore", *own, "--data.image_size", "32", "--output", str(tmp_path / "explored")])
    assert "<title>MySource" in (tmp_path / "explored/explore.html").read_text(encoding="utf-8")
    config = f"data:\n  source:\n    class_path: mine.MySource\n    init_args: {{folder: {images}, members: 5}}\n"
    (tmp_path / "source.yaml").write_text(config)
    compare = ["compare", "--models", "benchmark", "--run_dir", str(tmp_path / "compared"), *own]
    compare += ["--data.image_size", "32", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]
    main([*compare, "--trainer.limit_train_batches", "1"])
    run = RunFolder(tmp_path / "compared/benchmark")
    assert run.finished
    capsys.readouterr()
    main(["export", "--ckpt_path", str(run.best_checkpoint), "--output", str(tmp_path / "model.pt2")])
    assert "test images of its run" in capsys.readouterr().out


def test_in_python_it_is_an_object(mine: Mine, images: Path) -> None:
    mine(MINE)
    import mine as module  # type: ignore[import-not-found]

    data = ImageData(source=module.MySource(str(images), members=4), image_size=32)
    for fold in range(2):
        folded = ImageData(source=data.source, image_size=32, num_folds=2, fold=fold)
        groups: dict[str, set[str]] = {}
        for image, part in zip(folded.catalogue.images, folded.split.parts, strict=True):
            groups.setdefault(image.group, set()).add(part)
        assert len(groups) == 15
        assert all(len(found) == 1 for found in groups.values())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["mine.MySorce"], "--data.source mine.MySorce: the module mine has no 'MySorce'; did you mean mine.MySource?"),
        (["mien.MySource", "--data.source.folder", "x"], "there is no module 'mien'; did you mean mine?"),
        (["mine.NoSource"], "mine.NoSource is not a source of images: it has no method list(cache_dir)"),
        (["mine.NoSource", "--data.source.folder", "x"], "--data.source mine.NoSource is not a Source"),
        (["mine.MySource"], "--data.source: its class needs more settings: --data.source.init_args.folder"),
        (["mine.MySource", "--data.source.fodler", "x"], "the class of --data.source has no setting 'fodler'"),
        (["mine.MySource", "--data.source.folder", "x", "--data.root", "y"], "--data.root goes with"),
        (["mine.Bad", "--data.source.folder", "list"], "mine.Bad lists list; let its method list return a"),
        (["mine.Bad", "--data.source.folder", "nothing"], "mine.Bad lists no image; check what it is given"),
        (["mine.Bad", "--data.source.folder", "relative"], "whose file is not an absolute path"),
        (["mine.Bad", "--data.source.folder", "/unnamed"], "whose label is empty"),
        (["mine.Bad", "--data.source.folder", "/number"], "whose label is not text"),
        (["mine.Bad", "--data.source.folder", "/part"], "whose subset is none of '', 'train', 'val', 'test'"),
    ],
)
def test_a_source_that_cannot_be_one_is_one_sentence(
    mine: Mine, argv: list[str], message: str, refusal: Refusal
) -> None:
    mine(MINE)
    assert message in refusal("prepare", "--data.source", *argv)


@pytest.mark.slow
def test_a_data_set_of_torchvision_goes_the_whole_way(
    mnist: Path, tmp_path: Path, tiny_fit: Callable, whole_way: Callable
) -> None:
    own = ["--data.source", "kth_lightning.TorchvisionSource"]
    for part, train in (("dataset", "true"), ("test", "false")):
        flag = f"--data.source.init_args.{part}"
        own += [flag, "torchvision.datasets.MNIST", f"{flag}.root", str(mnist), f"{flag}.train", train]
    run = RunFolder(tmp_path / "run")
    whole_way(tiny_fit(run.path, *own), run)
    assert [*parts(run).values()].count("test") == run.read_metrics()["test"]["n"] == 20


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["torchvision.datasets.MNIST", "--data.source.dataset.root", "/nowhere"], "cannot be created with these"),
        (["torchvision.datasets.MNST", "--data.source.dataset.root", "x"], "did you mean torchvision.datasets.MNIST?"),
        (["torchvision.datasets.FakeData", "--data.source.dataset.size", "many"], "Expected a int"),
    ],
)  # fmt: skip
def test_a_data_set_that_cannot_be_made_is_one_sentence(flags: list[str], message: str, refusal: Refusal) -> None:
    line = refusal("prepare", "--data.source", "kth_lightning.TorchvisionSource", "--data.source.dataset", *flags)
    assert message in line
    assert line.startswith("error: --data.source")


def test_a_module_that_fails_says_how(mine: Mine, refusal: Refusal) -> None:
    mine("import nothing_like_this\nclass MySource: ...")
    line = refusal("prepare", "--data.source", "mine.MySource")
    assert "importing mine fails (ModuleNotFoundError: No module named 'nothing_like_this')" in line


def test_a_file_of_two_labels_is_a_contradiction(mine: Mine, images: Path, tmp_path: Path) -> None:
    mine(MINE)
    import mine as module  # type: ignore[import-not-found]

    (tmp_path / "twice").symlink_to(images)
    with pytest.raises(InputError, match=r"\.png twice, with the label 0 and 1; leave one out"):
        _ = ImageData(source=module.Bad(str(tmp_path / "twice"))).prepared
