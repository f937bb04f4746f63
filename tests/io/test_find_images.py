import os
from pathlib import Path

import pytest
from PIL import Image

from kth_lightning.errors import InputError
from kth_lightning.io.find_images import FoundImages
from kth_lightning.io.output_folder import make_output_folder


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
    return [file.relative_to(tree).as_posix() for file in FoundImages([str(tree / path) for path in paths])]


def test_a_folder_gives_its_visible_images_at_any_depth_in_order(tree: Path) -> None:
    assert found(tree, "") == ["a.JPG", "b.png", "deep/d.gif", "deep/er/c.webp"]


def test_a_file_is_taken_whatever_its_name_and_paths_keep_their_order(tree: Path) -> None:
    assert found(tree, "notes.txt", "deep/er", "a.JPG") == ["notes.txt", "deep/er/c.webp", "a.JPG"]


def test_a_glob_gives_files_and_what_is_in_folders_once(tree: Path) -> None:
    assert found(tree, "*.png") == ["b.png"]
    assert found(tree, "d*") == ["deep/d.gif", "deep/er/c.webp"]
    assert found(tree, "**/*.[gw]*") == ["deep/d.gif", "deep/er/c.webp"]
    assert found(tree, "deep/**") == ["deep/d.gif", "deep/er/c.webp"]


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        (("deep", "b.png", "deep/er/../er"), "deep/er/../er lies in .*deep, which is named too; name one of them"),
        (("deep/er", "deep"), "deep/er lies in .*deep, which"),
        (("deep", "deep/**/*.gif"), r"\*\*/\*.gif lies in .*deep, which"),
        (("b.png", "deep/../b.png"), "deep/../b.png and .*b.png are the same place; name it once"),
    ],
)
def test_images_that_two_paths_name_are_refused(tree: Path, paths: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        found(tree, *paths)


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tree: Path) -> None:
    Image.new("RGB", (20, 20)).save(tree / "[ab].png")
    assert found(tree, "[ab].png") == ["[ab].png"]


def test_links_in_a_circle_are_walked_once(tree: Path) -> None:
    (tree / "deep" / "up").symlink_to(tree)
    assert found(tree, "") == ["a.JPG", "b.png", "deep/d.gif", "deep/er/c.webp"]


def test_what_is_an_image_is_told_by_its_content_where_its_name_does_not_say(tree: Path) -> None:
    """And what is none is counted, by its suffix."""
    for name in ("deep/noname", "deep/wrong.txt"):
        Image.new("RGB", (20, 20)).save(tree / name, "PNG")
    for name in ("1.cr2", "2.CR2", "3.dng"):  # whose first bytes are those of a TIFF file
        Image.new("RGB", (20, 20)).save(tree / "deep" / name, "TIFF")
    (tree / "deep/clip.mp4").write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41")
    (tree / "deep/empty").write_bytes(b"")
    os.mkfifo(tree / "deep/pipe")
    images = FoundImages([str(tree / "deep")])
    assert [file.name for file in images] == ["d.gif", "noname", "wrong.txt", "c.webp"]
    assert images.passed_over_note() == "; 6 other files (2 without a suffix, 2 .cr2, 1 .dng, 1 .mp4) passed over"


SYSTEM = ["@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information", "#recycle"]


@pytest.mark.parametrize("name", SYSTEM)
def test_folders_of_systems_are_passed_over(tree: Path, name: str) -> None:
    (tree / "deep/er" / name).mkdir()
    Image.new("RGB", (20, 20)).save(tree / "deep/er" / name / "x.png")
    assert found(tree, "deep/er") == found(tree, "deep/er/**/*.*") == ["deep/er/c.webp"]
    assert found(tree, f"deep/er/{name}") == [f"deep/er/{name}/x.png"]  # unless they are asked for


def test_what_this_program_wrote_is_passed_over_unless_it_is_asked_for(tree: Path) -> None:
    make_output_folder(tree / "deep/er/runs/1", "--run_dir")
    (tree / "deep/er/runs/1/figures").mkdir()
    Image.new("RGB", (20, 20)).save(tree / "deep/er/runs/1/figures/x.png")
    assert found(tree, "deep/er") == found(tree, "deep/er/**/*.*") == ["deep/er/c.webp"]
    assert found(tree, "deep/er/runs/1/figures") == ["deep/er/runs/1/figures/x.png"]


def test_brackets_in_the_folders_above_a_glob_are_names(tree: Path) -> None:
    (tree / "June [2024] *").mkdir()
    Image.new("RGB", (20, 20)).save(tree / "June [2024] *" / "x.png")
    assert found(tree, "June [2024] */*.png") == ["June [2024] */x.png"]
    assert found(tree, "June [2024] */**/*.png") == ["June [2024] */x.png"]
    assert found(tree, "[d]eep/er/*.w[de]bp") == ["deep/er/c.webp"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_cannot_be_listed_is_not_passed_over_in_silence(tree: Path) -> None:
    (tree / "deep").chmod(0)
    try:
        assert found(tree, "") == ["a.JPG", "b.png", "deep"]
    finally:
        (tree / "deep").chmod(0o755)


@pytest.mark.parametrize("path", ["empty", "nowhere", "*.bmp"])
def test_what_gives_no_image_is_an_error_before_any_image_is_given_out(tree: Path, path: str) -> None:
    with pytest.raises(
        InputError, match=path.replace("*", r"\*").replace("empty", r"empty has .*, but 1 other file \(1 .txt\)")
    ):
        FoundImages([str(tree / "a.JPG"), str(tree / path)])


def test_an_empty_word_is_not_the_folder_one_is_in(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images)
    with pytest.raises(InputError, match="''"):
        FoundImages([""])
