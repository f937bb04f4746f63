"""Where a classifier looks: activation maps, overlays, contact sheets.

May import drawing, models, data and io.
"""
