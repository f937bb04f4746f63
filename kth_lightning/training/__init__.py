"""Train one model into a run folder, or all three side by side."""
