"""What to do about a checkpoint that lacks what later versions keep in it."""

TRAIN_AGAIN = "train it again with fit --config RUN/config.yaml --run_dir NEW, RUN being its run folder"
