"""Show some places of the drawn sample, a row each: python scripts/sites.py [OUTPUT.png]."""

import sys
from collections import defaultdict
from pathlib import Path

from PIL import Image

from kth_lightning.data.sources.sample import SampleSource
from kth_lightning.io.cache_folder import cache_folder

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "sites.png"
PLACES, IMAGES, SIDE, GAP = 4, 8, 100, 2


def main() -> None:
    """Put the first images of each of the first places beside each other."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for candidate in SampleSource(sites=12).list(cache_folder()).candidates:
        groups[candidate.group].append(candidate.file)
    step = SIDE + GAP
    sheet = Image.new("RGB", (IMAGES * step - GAP, PLACES * step - GAP), "white")
    for row, name in enumerate(sorted(groups)[:PLACES]):
        files = groups[name]
        for column, file in enumerate(files[:: len(files) // IMAGES][:IMAGES]):
            with Image.open(file) as image:
                sheet.paste(image.resize((SIDE, SIDE)), (column * step, row * step))
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    sheet.quantize(128).save(output, optimize=True)


if __name__ == "__main__":
    main()
