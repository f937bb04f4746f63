"""Do to images and run folders what people do, in any order, and hold every run against what docs/promises.md says.

    python scripts/run_states.py --steps 5000 --seed 1

Images are added, removed, edited, relabelled and moved, classes and files renamed; runs are started, killed, repeated,
moved and deleted; checkpoints are tested, folds compared, reports written. What is held to be true stands in
tests/states/run_machine.py: among others, that no test image was ever trained on unless it is said, that nothing
finished is lost, and that no figure is made of mixed data. Exits with 0 only if so, else with the steps that led there.
"""

import argparse
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

ROOT = Path(__file__).resolve().parents[1]
AT_ONCE = 40
"""Steps of one machine, which begins with new images and no run."""


def main() -> None:
    """Take the steps, and say what came of the commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1000, help="How many to take, at least.")
    parser.add_argument("--seed", type=int, default=0, help="Another one takes other steps.")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests" / "states"))
    from run_machine import RunMachine

    chosen = settings(
        max_examples=max(2, options.steps // AT_ONCE + 1),  # the first of them does the first thing over and over
        stateful_step_count=AT_ONCE,
        phases=[Phase.generate],  # to make the steps fewer would take longer than to read them
        suppress_health_check=list(HealthCheck),
        deadline=None,
        database=None,
    )
    started, number = time.monotonic(), options.seed
    while RunMachine.steps < options.steps:
        run_state_machine_as_test(seed(number)(RunMachine), settings=chosen)
        number += 1_000_003
        print(
            f"{RunMachine.steps} steps in {time.monotonic() - started:.0f} s: {_told(RunMachine.outcomes)}", flush=True
        )


def _told(outcomes: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(outcomes.items()))


if __name__ == "__main__":
    main()
