import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="commands are carried out in forked processes")
def test_whatever_is_done_to_images_and_runs_no_figure_is_wrong_without_a_word() -> None:
    # In a process of its own, which has never computed a gradient: such a one cannot be forked.
    counts, wanted = Counter[str](), {"fit 0", "fit 2", "fit -9", "compare 0", "compare 2", "test 0", "report 0"}
    for seed in range(3):  # the same seed takes other steps with another version of Hypothesis
        command = [sys.executable, str(ROOT / "scripts/run_states.py"), "--steps", "120", "--seed", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, cwd=ROOT)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
        last = done.stdout.splitlines()[-1]
        steps, outcomes = re.fullmatch(r"(\d+) steps in \d+ s: (.*)", last).groups()  # type: ignore[union-attr]
        assert int(steps) >= 120
        counts.update({name: int(count) for name, _, count in (item.rpartition(" ") for item in outcomes.split(", "))})
        if counts.keys() >= wanted:
            break
    for name in wanted:
        assert counts[name] > 0, counts
