"""The commands: one file each, which parses flags and starts the work of the other rooms.

May import every room; nothing imports it but `python -m kth_lightning` and `kth_lightning.fit`.
"""
