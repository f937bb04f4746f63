"""Start the command line: python -m kth_lightning."""

from kth_lightning.cli.main import main

main()
