"""What a run's splits.csv tells."""

import csv

from kth_lightning.io.run_folder import RunFolder


def parts(run: RunFolder) -> dict[str, set[str]]:
    """Return the content of the images of each part."""
    found: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    with run.splits.open(newline="") as stream:
        for row in csv.DictReader(stream):
            found[row["part"]].add(row["sha256"])
    return found
