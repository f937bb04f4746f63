"""Classify pictures with a frozen trunk and a trained tail, and know how good the classifier is."""

__version__ = "0.1.0"
