"""What every picture with text in it shares: fonts for all scripts, names that no font has, and figures as files.

May import io.
"""
