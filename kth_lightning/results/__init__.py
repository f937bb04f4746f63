"""What is read from run folders: figures, statistics and tables; nothing here trains or loads a model."""
