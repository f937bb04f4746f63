"""A trained classifier at work: predictions, the exported graph, the model card.

May import explain, evaluation, models, data and io.
"""
