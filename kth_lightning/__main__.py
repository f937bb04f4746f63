"""Start the command line: python -m kth_lightning."""

from kth_lightning.cli import main

main()
