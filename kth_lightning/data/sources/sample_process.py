"""A process that draws its share of the sample: most of the work holds Python's lock, so threads would take turns.

It is started as a command, since processes of `multiprocessing` run a user's script again. It imports no torch.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from kth_lightning.data.sources.sample_drawing import ANIMALS, draw
from kth_lightning.data.sources.sample_site import SampleSite


def draw_images(numbers: Iterable[int], folder: Path, font: Path, seed: int, sites: int) -> Iterable[int]:
    """Draw images and masks, and yield the number of each when its files are written.

    Args:
        numbers: Which images.
        folder: Holds `<class>/original/` and `<class>/segment/`.
        font: Of the drawings.
        seed: Of all images.
        sites: Number of places at which they are drawn; 0 for a place of its own for every image.
    """
    places = [SampleSite(seed, number) for number in range(sites)]
    for number in numbers:
        kind = number % len(ANIMALS)
        label, rng = list(ANIMALS)[kind], np.random.default_rng([seed, number])
        site, name = None, f"{number:04d}"
        if places:
            shares = np.array([item.mixture[kind] for item in places])
            site = places[int(rng.choice(len(places), p=shares / shares.sum()))]
            name += f"-{site.name}"
        image, mask = draw(label, rng, font, site)
        image.save(folder / label / "original" / f"{name}.jpg", quality=85)
        mask.save(folder / label / "segment" / f"{name}.png")
        yield number


def main() -> None:
    """Draw what the one argument asks for, in JSON; write a line for each image, or the error of the system."""
    asked = json.loads(sys.argv[1])
    try:
        folder, font = Path(asked["folder"]), Path(asked["font"])
        for number in draw_images(range(*asked["numbers"]), folder, font, asked["seed"], asked["sites"]):
            print(number, flush=True)
    except (BrokenPipeError, KeyboardInterrupt):  # the command that started it has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of the pipe at its end
        sys.exit(1)
    except OSError as error:
        print(json.dumps([error.errno, error.strerror, error.filename]), flush=True)


if __name__ == "__main__":
    main()
