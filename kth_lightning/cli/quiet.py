"""What Lightning says that tells nobody anything here."""

import logging
import warnings

_SILENCED = {
    ".*LightningCLI's args parameter is intended.*": "`main` looks at the command line first and passes it on",
    ".*Checkpoint directory .* exists and is not empty.*": "a run that goes on finds its own checkpoints there",
    ".*It is recommended to use `self.log\\(.*sync_dist=True\\)`.*": "the figures are summed over processes by then",
    ".*all_gather is deprecated.*": "Lightning's own call of torch",
    ".*(JSONARGPARSE_DEPRECATION_WARNINGS|was deprecated in v4).*": "LightningCLI's own calls of jsonargparse",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*": "Lightning's own call of torch",
    ".*The number of training batches .* is smaller than the logging interval.*": "figures are logged by the epoch",
    ".*Found .* module\\(s\\) in eval mode at the start of training.*": "a frozen trunk is, on purpose",
    ".*GPU available but not used.*": "it is left alone where the command says so",
    ".*does not have many workers which may be a bottleneck.*": "batches are slices of what lies in memory",
}
"""Warnings that are not shown, and why each has no cause that could be mended here."""


def quiet_lightning() -> None:
    """Show Lightning's warnings but those of `_SILENCED`, and none of its notes."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _SILENCED:
        warnings.filterwarnings("ignore", f"(?s){message}")
