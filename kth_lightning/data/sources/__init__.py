"""Where images and their labels come from.

May import the catalogue's types, how images are read, and io.
"""
