"""What run folders and data look like: pages, charts and tables.

Reads run folders; trains nothing and loads no model. May import evaluation, data and io.
"""
