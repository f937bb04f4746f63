"""Boxes, which are cut out of their images already, are seen whole."""

from jsonargparse import Namespace

from kth_lightning.cli.same_run import MakeImages
from kth_lightning.data.sources.choose import NAMES, source_name
from kth_lightning.data.square import CROP, LETTERBOX
from kth_lightning.io.terminal import print_rank_zero

_WITHOUT_BOXES = {*NAMES} - {"table"}


def see_boxes_whole(data: Namespace, make: MakeImages) -> None:
    """Put boxes between bars where they would be cut to their middle; whole images keep what was chosen.

    Args:
        data: Data settings, whose `resize` is changed.
        make: Makes images of such settings.
    """
    if data.resize == CROP and _has_boxes(data, make):
        data.resize = LETTERBOX
        print_rank_zero(
            "boxes are seen whole, between bars (--data.resize letterbox): crop would cut each to its middle"
        )


def _has_boxes(data: Namespace, make: MakeImages) -> bool:
    if data.boxes is not None:
        return True
    if source_name(vars(data)) in _WITHOUT_BOXES:
        return False
    return any(image.box for image in make(data).prepared.catalogue.images)
