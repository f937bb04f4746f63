"""Files and the terminal: run folders, walking folders, bounded parallel work.

May import nothing else of the package but its errors.
"""
