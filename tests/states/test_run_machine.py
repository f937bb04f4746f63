import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="commands are carried out in forked processes")
def test_whatever_is_done_to_images_and_runs_no_figure_is_wrong_without_a_word() -> None:
    # In a process of its own, which has never computed a gradient: such a one cannot be forked.
    command = [sys.executable, str(ROOT / "scripts/run_states.py"), "--steps", "120"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    last = done.stdout.splitlines()[-1]
    steps, outcomes = re.fullmatch(r"(\d+) steps in \d+ s: (.*)", last).groups()  # type: ignore[union-attr]
    assert int(steps) >= 120
    commands, codes, _ = (set(column) for column in zip(*(item.split() for item in outcomes.split(", ")), strict=True))
    # Which of them meet depends on the version of Hypothesis, which takes other steps by the same seed.
    assert commands >= {"fit", "compare", "test", "report"}, outcomes
    assert codes >= {"0", "2", "-9"}, outcomes
