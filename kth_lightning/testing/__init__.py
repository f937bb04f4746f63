"""Checks that tell anybody whether a class of their own keeps the promises of what it plugs into.

May import everything below the commands.
"""

from kth_lightning.testing.augmentation import check_augmentation as check_augmentation
from kth_lightning.testing.classifier import check_classifier as check_classifier
from kth_lightning.testing.source import check_source as check_source
