"""What joins a run while it trains: one file a callback, each does one thing.

May import every room but cli, report's pages and predict.
"""
