from pathlib import Path

import pytest

from kth_lightning.data.sources.folder import FolderSource
from kth_lightning.data.sources.source import Listing
from kth_lightning.errors import InputError


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def _found(listing: Listing) -> list[tuple[str, str, str]]:
    return [(one.file.relative_to(listing.root).as_posix(), one.label, one.subset) for one in listing.candidates]


def test_class_folders_at_any_depth_and_every_suffix_are_listed(tmp_path: Path) -> None:
    _touch(tmp_path, "cat/a.JPG", "cat/2024/may/b.png", "dog/c.webp", "dog/d.bmp", "dog/e.tif", "dog/f.jpeg", "dog/g")
    _touch(tmp_path, "cat/.hidden.jpg", ".cache/x.jpg", "dog/.thumbs/y.jpg", "readme.md", "loose.jpg")
    listing = FolderSource(tmp_path).list(tmp_path / "cache")
    assert _found(listing) == [
        ("cat/2024/may/b.png", "cat", ""),
        ("cat/a.JPG", "cat", ""),
        ("dog/c.webp", "dog", ""),
        ("dog/d.bmp", "dog", ""),
        ("dog/e.tif", "dog", ""),
        ("dog/f.jpeg", "dog", ""),
        ("dog/g", "dog", ""),  # whether it is an image is told by its content, when it is read
    ]
    assert [(file.name, reason) for file, reason in listing.problems] == [("loose.jpg", "outside the class folders")]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["valid", "val", "Validation"])
def test_split_folders_prescribe_the_subset(tmp_path: Path, name: str) -> None:
    _touch(tmp_path, "train/cat/a.jpg", "train/dog/x/b.jpg", f"{name}/cat/c.jpg", "test/dog/d.jpg")
    assert _found(FolderSource(tmp_path).list(tmp_path / "cache")) == sorted(
        [
            ("test/dog/d.jpg", "dog", "test"),
            ("train/cat/a.jpg", "cat", "train"),
            ("train/dog/x/b.jpg", "dog", "train"),
            (f"{name}/cat/c.jpg", "cat", "val"),
        ]
    )


def test_a_class_may_be_called_test_beside_other_classes(tmp_path: Path) -> None:
    listing = FolderSource(_touch(tmp_path, "test/a.jpg", "dog/b.jpg")).list(tmp_path / "cache")
    assert {(one.label, one.subset) for one in listing.candidates} == {("test", ""), ("dog", "")}


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    root = _touch(tmp_path / "root", "cat/a.jpg")
    (root / "dog").symlink_to(_touch(tmp_path / "elsewhere", "b.jpg"))
    (root / "dog/more").symlink_to(_touch(tmp_path / "more", "c.jpg"))
    (root / "cat/loop").symlink_to(root / "cat")
    assert [name for name, *_ in _found(FolderSource(root).list(tmp_path / "cache"))] == [
        "cat/a.jpg",
        "dog/b.jpg",
        "dog/more/c.jpg",
    ]


def test_test_root_adds_test_images_of_known_classes(tmp_path: Path) -> None:
    root = _touch(tmp_path / "root", "cat/a.jpg", "dog/b.jpg")
    web = _touch(tmp_path / "web", "dog/c.jpg")
    listing = FolderSource(root, web).list(tmp_path / "cache")
    assert [(one.file, one.subset) for one in listing.candidates] == [
        (root / "cat/a.jpg", ""),
        (root / "dog/b.jpg", ""),
        (web / "dog/c.jpg", "test"),
    ]


def test_an_unknown_class_to_test_names_the_near_one(tmp_path: Path) -> None:
    root = _touch(tmp_path / "root", "penguin/a.jpg", "dog/b.jpg")
    web = _touch(tmp_path / "web", "penquin/c.jpg")
    with pytest.raises(InputError, match=r"--data\.test_root: the class 'penquin' .* did you mean 'penguin'\?"):
        FolderSource(root, web).list(tmp_path / "cache")
    split = _touch(tmp_path / "split", "train/cat/a.jpg", "test/cta/b.jpg")
    with pytest.raises(InputError, match=r"--data\.root: the class 'cta' .* did you mean 'cat'\?"):
        FolderSource(split).list(tmp_path / "cache")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], "has no class folders"),
        (["a.jpg"], "has images but no class folders"),
        (["cat/a.jpg", "dog/notes.txt"], "dog is an empty class"),
        (["train/a.jpg"], "train has images but no class folders"),
        (["valid/cat/a.jpg", "test/cat/b.jpg"], "has no train folder"),
    ],
)
def test_a_folder_of_another_shape_is_one_sentence(tmp_path: Path, files: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=rf"--data\.root: .*{sentence}"):
        FolderSource(_touch(tmp_path, *files)).list(tmp_path / "cache")


def test_missing_folders_and_files_in_their_place_name_the_flag(tmp_path: Path) -> None:
    root = _touch(tmp_path / "root", "cat/a.jpg", "file.txt")
    with pytest.raises(InputError, match=r"--data\.root: there is no folder .*nowhere"):
        FolderSource(tmp_path / "nowhere").list(tmp_path / "cache")
    with pytest.raises(InputError, match=r"--data\.root: .*file.txt is a file"):
        FolderSource(root / "file.txt").list(tmp_path / "cache")
    with pytest.raises(InputError, match=r"--data\.test_root: there is no folder"):
        FolderSource(root, tmp_path / "nowhere").list(tmp_path / "cache")
    with pytest.raises(InputError, match=r"--data\.test_root: .* lies in --data\.root"):
        FolderSource(root, root / "cat").list(tmp_path / "cache")
