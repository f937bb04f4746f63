"""What is computed once and kept: rows of pixels or features, by content and view.

May import io.
"""
