"""Where a classifier looks: activation maps, overlays, contact sheets.

May import models, data and io.
"""
