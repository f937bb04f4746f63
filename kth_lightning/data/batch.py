"""What a batch is, between the data sets and the models."""

from typing import Any

PADDING = -1
"""Label of the rows that fill a process's share of a batch up; they count nowhere."""

Batch = dict[str, Any]
"""One batch.

`index` int64 [B], the images' positions in the catalogue; `view` int64 [B]; `label` int64 [B]; `count`, the number of
images in the batch of all processes. Also `images` uint8 [B, 3, H, W] and, where they are yet to be augmented, `draws`
[B, P] of a preset or `key` int64 [B]; or `features` as `Classifier.features` gives them and, where those of the mirror
images count too, `mirrored` likewise.
"""
