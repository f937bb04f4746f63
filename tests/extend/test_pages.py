"""Every code block of README and docs/ is run, or is known to be run by another test."""

import ast
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

import kth_lightning
from kth_lightning.cli.main import main
from kth_lightning.cli.parser import Parser
from kth_lightning.io.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
ELSEWHERE = {
    ("README.md", "python"): "test_readme.py",
    ("extend", "python"): "test_documentation.py",
    ("extend", "yaml"): "test_documentation.py",
    ("int8.md", "python"): "../cli/test_export_int8.py",
    ("learning-curve.md", "python"): "test_learning_curve_page.py",
}
"""Blocks of a page, or of a folder of pages, that tests of their own run."""

TINY = """
model: {class_path: BenchmarkCNN, init_args: {filters: [8, 16], block_dropout: [0, 0]}}
data: {image_size: 32}
trainer: {max_epochs: 2, accelerator: cpu, precision: 32-true}
"""


class Block(NamedTuple):
    page: str
    language: str
    code: str

    @property
    def test(self) -> str | None:
        """Return which other test runs it."""
        places = (self.page, str(Path(self.page).parent))
        return next((ELSEWHERE[place, self.language] for place in places if (place, self.language) in ELSEWHERE), None)


def blocks() -> list[Block]:
    return [
        Block(page.relative_to(DOCS if page.is_relative_to(DOCS) else ROOT).as_posix(), language, code)
        for page in PAGES
        for language, code in re.findall(r"```(\w+)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]


def commands(*pages: str) -> list[str]:
    """List the commands of this package in blocks, all of a page's or all of every page's."""
    wanted = [block for block in blocks() if block.language == "bash" and (not pages or block.page in pages)]
    lines = [line for block in wanted for line in block.code.replace("\\\n", " ").splitlines()]
    return list(dict.fromkeys(line for line in lines if "-m kth_lightning" in line))


def words(line: str) -> list[str]:
    return shlex.split(line.partition("-m kth_lightning")[2].replace("$k", "0"))  # of a loop over folds


class _ParsedError(Exception):
    pass


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Give a command line to its parser, and do nothing with what it says."""
    original, depth = Parser.parse_args, list[Parser]()

    def parse_args(self: Parser, *args: Any, **settings: Any) -> Any:
        depth.append(self)
        try:
            parsed = original(self, *args, **settings)
        finally:
            depth.pop()
        if depth:  # a class path's settings have a parser of their own
            return parsed
        raise _ParsedError

    def parse(argv: list[str]) -> None:
        monkeypatch.setattr(Parser, "parse_args", parse_args)
        with pytest.raises(_ParsedError):
            main(argv)

    return parse


@pytest.mark.parametrize("block", blocks(), ids=lambda block: f"{block.page}-{block.language}-{len(block.code)}")
def test_every_block_is_run_by_some_test(block: Block) -> None:
    if block.test:
        assert (Path(__file__).parent / block.test).is_file()
    elif block.language == "python":
        assert block.page in ("using.md", "folders.md")
    else:
        assert block.language == "bash"
        for line in block.code.replace("\\\n", " ").splitlines():
            if "-m kth_lightning" in line or "uv sync" in line:
                continue
            if "pytest" in line:
                assert "grep -m 1 -E '^pip install uv && uv run .*pytest' README.md" in (ROOT / ".ci/run").read_text()
                continue
            if not line.startswith("python "):
                assert line.startswith("for k in ") or line == "done"
                continue
            script, *flags = shlex.split(line.removeprefix("python "))
            source = (ROOT / script).read_text(encoding="utf-8")
            assert all(f'"{flag}"' in source for flag in flags if flag.startswith("--"))


@pytest.mark.slow
@pytest.mark.parametrize("line", commands())
def test_a_command_of_a_page_is_understood(
    line: str, parse: Callable[[list[str]], None], mine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [block for block in blocks() if block.page.startswith("extend/") and block.language == "python"]
    mine("\n".join(block.code for block in pages if "\nclass " in block.code))
    monkeypatch.chdir(ROOT)
    parse(words(line))


@pytest.mark.slow
def test_the_tutorial_goes_from_a_folder_to_predictions(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for folder in ("photos", "new_photos"):
        shutil.copytree(images, tmp_path / folder)
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for line in commands("tutorial.md"):
        argv = words(line)
        if argv[0] != "demo":  # which runs until it is stopped; test_demo.py looks at it
            main([*argv, "--config", "tiny.yaml"] if argv[0] == "fit" else argv)
    assert (tmp_path / "explore/photos/explore.html").is_file()
    assert RunFolder(Path("runs/photos")).report.is_file()
    assert (tmp_path / "maps/explain.csv").is_file()
    assert len((tmp_path / "labels.csv").read_text(encoding="utf-8").splitlines()) == 61
    assert "60 of 60 images classified" in capsys.readouterr().out


@pytest.mark.slow
def test_the_lines_of_python_of_using_and_folders(
    tiny_run: RunFolder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pandas = pytest.importorskip("pandas")
    code = {block.page: block.code for block in blocks() if block.language == "python"}
    image = Image.open(images / "class0" / "000.png")
    image.save(tmp_path / "a.jpg")
    monkeypatch.chdir(tmp_path)
    lines = code["using.md"].replace("runs/my-run/checkpoints/best.ckpt", str(tiny_run.best_checkpoint))
    exec(lines, {"pil_image": image, "array": np.asarray(image)})
    assert len(capsys.readouterr().out.splitlines()) == 3
    table = pandas.DataFrame({"path": ["'=1.jpg", "'a.jpg"]})
    exec(code["folders.md"], {"table": table})
    assert table["path"].tolist() == ["=1.jpg", "'a.jpg"]


def test_packages_go_into_the_environment_that_uv_made() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    package = Path(kth_lightning.__file__).parent
    for file in (*DOCS.rglob("*.md"), *package.rglob("*.py"), *package.rglob("*.txt")):
        text = re.sub(r'"\n\s*"', "", file.read_text(encoding="utf-8"))  # of a sentence in several lines
        assert re.findall(r"(?<!uv )pip install (?!uv &&).{20}", text) == [], file
        assert set(re.findall(r"pip install '\.\[([\w-]+)\]'", text)) <= extras.keys(), file


def quoted() -> list[str]:
    """List the sentences that pages explain: of the page of troubles, and what parts are refused with."""
    sentences = re.findall(r"^### `(.*)`$", (DOCS / "faq.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(sentences) > 25
    for page in sorted((DOCS / "extend").glob("*.md")):
        _, _, refused = page.read_text(encoding="utf-8").partition("## What is refused\n")
        items = refused.split("\n- ")[1:]
        assert all(item.rstrip().endswith("`") for item in items)
        sentences += [item.rstrip().removesuffix("`").rpartition("`")[2] for item in items]
    assert len(sentences) > 50
    return sentences


def test_sentences_that_pages_explain_are_those_of_the_program() -> None:
    package = Path(kth_lightning.__file__).parent
    said = "\0".join(
        node.value
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    assert [sentence for sentence in quoted() if not all(part.strip() in said for part in sentence.split("…"))] == []
