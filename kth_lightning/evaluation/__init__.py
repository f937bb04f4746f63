"""What figures are worth: statistics, calibration, localisation, leakage.

May import models, stores, data and io.
"""
