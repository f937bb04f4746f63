"""Pages of the documentation that are made when it is built: README, changelog, and the command line's reference.

MkDocs calls this (`hooks` in mkdocs.yml):

    uv run --extra docs mkdocs build --strict
"""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from kth_lightning.cli.help_page import help_page
from kth_lightning.cli.main import COMMANDS, USAGE, main

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that have no file in docs/."""
    made = {
        "index.md": _from_root("README.md"),
        "changelog.md": _from_root("CHANGELOG.md"),
        "cli.md": _command_line(),
    }
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Name files of the repository, which is not part of the site, instead of linking to them."""
    markdown = markdown.replace("](../README.md", "](index.md").replace("](../CHANGELOG.md", "](changelog.md")
    return re.sub(r"\[([^\]]+)\]\(((?:\.\./)*(?:tests|scripts|configs)/[^)]*)\)", _named, markdown)


def _named(link: re.Match[str]) -> str:
    path = link[2].replace("../", "")
    return f"{link[1]}: `{path}`" if link[1] != path else f"`{path}`"


def _from_root(name: str) -> str:
    text = (ROOT / name).read_text(encoding="utf-8")
    return text.replace("](docs/", "](").replace('"docs/', '"').replace("](CHANGELOG.md", "](changelog.md")


def _command_line() -> str:
    """Write the short page of each command and, folded, all of its flags, as the parsers print them."""
    parts = ["# Command line\n", f"```text\n{USAGE}\n```\n"]
    for command in COMMANDS:
        parts.append(f"## {command}\n\n```text\n{help_page([command, '--help'])}\n```\n")
        parts.append(f'<details markdown="1"><summary>All flags of {command}</summary>\n')
        parts.append(f"```text\n{_all_flags(command)}\n```\n\n</details>\n")
    return "\n".join(parts)


def _all_flags(command: str) -> str:
    printed = io.StringIO()
    with redirect_stdout(printed):
        try:
            main([command, "--help", "all"])
        except SystemExit as ended:
            if ended.code:
                raise
    return printed.getvalue().rstrip()
