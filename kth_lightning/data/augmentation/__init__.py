"""Views of images: what training sees instead of the clean image.

May import io.
"""
