"""One run: what joins the trainer, and the order in which it trains, completes its best checkpoint and tests it.

It knows a trainer, a model, images and a run folder, and no command line. May import every room but cli and testing.
"""
