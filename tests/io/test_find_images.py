import os
from pathlib import Path

import pytest
from PIL import Image

from kth_lightning.errors import InputError
from kth_lightning.io.find_images import find_images


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    names = [
        "b.png",
        "a.JPG",
        "notes.txt",
        ".hidden.png",
        "deep/er/c.webp",
        "deep/d.gif",
        ".cache/e.png",
        "empty/x.txt",
    ]
    for name in names:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return tmp_path


def found(tree: Path, *paths: str) -> list[str]:
    return [file.relative_to(tree).as_posix() for file in find_images([str(tree / path) for path in paths])]


def test_a_folder_gives_its_visible_images_at_any_depth_in_order(tree: Path) -> None:
    assert found(tree, "") == ["a.JPG", "b.png", "deep/er/c.webp"]


def test_a_file_is_taken_whatever_its_name_and_paths_keep_their_order(tree: Path) -> None:
    assert found(tree, "notes.txt", "deep", "a.JPG") == ["notes.txt", "deep/er/c.webp", "a.JPG"]


def test_a_glob_gives_files_and_what_is_in_folders_once(tree: Path) -> None:
    assert found(tree, "*.png") == ["b.png"]
    assert found(tree, "d*") == ["deep/er/c.webp"]
    assert found(tree, "**/*.[gw]*") == ["deep/d.gif", "deep/er/c.webp"]
    assert found(tree, "deep/**") == ["deep/d.gif", "deep/er/c.webp"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tree: Path) -> None:
    Image.new("RGB", (20, 20)).save(tree / "[ab].png")
    assert found(tree, "[ab].png") == ["[ab].png"]


def test_links_in_a_circle_are_walked_once(tree: Path) -> None:
    (tree / "deep" / "up").symlink_to(tree)
    assert found(tree, "") == ["a.JPG", "b.png", "deep/er/c.webp"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_cannot_be_listed_is_not_passed_over_in_silence(tree: Path) -> None:
    (tree / "deep").chmod(0)
    try:
        assert found(tree, "") == ["a.JPG", "b.png", "deep"]
    finally:
        (tree / "deep").chmod(0o755)


@pytest.mark.parametrize("path", ["empty", "nowhere", "*.bmp"])
def test_what_gives_no_image_is_an_error_before_any_image_is_given_out(tree: Path, path: str) -> None:
    with pytest.raises(InputError, match=path.replace("*", r"\*")):
        find_images([str(tree / "a.JPG"), str(tree / path)])


def test_an_empty_word_is_not_the_folder_one_is_in(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images)
    with pytest.raises(InputError, match="''"):
        find_images([""])
