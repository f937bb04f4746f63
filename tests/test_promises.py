import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_promise_has_a_test_that_exists() -> None:
    rows = [line for line in (ROOT / "docs/promises.md").read_text().splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith(("| promise", "|--"))]
    assert len(promises) > 40
    for row in promises:
        named = re.findall(r"`((?:tests|scripts)/[^`]+)`", row)
        assert named, row
        for name in named:
            file, _, function = name.partition("::")
            text = (ROOT / file).read_text()
            assert not function or f"def {function}(" in text, name
