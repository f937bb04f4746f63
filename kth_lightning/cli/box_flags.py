"""The flags that name boxes of images, for every command that is given images on its command line."""

from kth_lightning.cli.parser import Parser
from kth_lightning.data.found_boxes import MIN_CONFIDENCE, WithoutBox


def add_box_flags(parser: Parser) -> None:
    """Add `--boxes`, `--min_box_confidence` and `--without_box`, which `BoxedImages` takes."""
    parser.add_argument(
        "--boxes",
        type=str | None,
        default=None,
        help="Boxes of the images, each of which gets a row with a column box: MegaDetector's JSON, whose animals "
        "count, or a CSV or Parquet file with the columns path and box, and perhaps conf.",
    )
    parser.add_argument(
        "--min_box_confidence",
        type=float,
        default=MIN_CONFIDENCE,
        help="Lowest confidence at which a box counts, where the file of boxes says how sure they are.",
    )
    parser.add_argument(
        "--without_box",
        type=WithoutBox,
        default="whole",
        help="What becomes of an image without a box: whole takes all of it, leave_out leaves it out.",
    )
