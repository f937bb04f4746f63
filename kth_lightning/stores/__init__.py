"""What is computed once and kept: pixels and features.

May import data and io.
"""
