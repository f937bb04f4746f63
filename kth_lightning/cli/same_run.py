"""Whether a run folder holds the run that is asked for."""

import yaml

from kth_lightning.errors import InputError
from kth_lightning.io.flat_settings import flat_settings
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.terminal import print_rank_zero
from kth_lightning.report.page import write_report


def is_finished(run: RunFolder, resolved: str) -> bool:
    """Tell whether a run was finished before, and say so, or that it goes on.

    Args:
        run: The folder that was asked for.
        resolved: Text of config.yaml, as this command would write it.

    Raises:
        InputError: The folder holds a run with other settings, or a damaged one.
    """
    if not run.config.exists():
        if run.path.exists() and not run.path.is_dir():
            raise InputError(f"--run_dir {run.path} is a file; give a folder")
        return False
    try:
        written = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        written = None
    if not isinstance(written, dict):
        raise InputError(f"{run.config} is damaged; give another --run_dir, or delete this one to start anew")
    ours, theirs = flat_settings(yaml.safe_load(resolved)), flat_settings(written)
    differ = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if differ:
        key = differ[0]
        raise InputError(
            f"--run_dir {run.path} holds a run with another --{key}: {theirs.get(key)} there, {ours.get(key)} here; "
            "give another --run_dir, or the same settings to go on with that run"
        )
    if run.finished:
        try:
            accuracy = float(run.read_metrics()["test"]["acc"]["value"])
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{run.metrics} is damaged; delete it and repeat the command, which tests anew") from None
        if not run.report.exists():
            write_report(run.path)
        print_rank_zero(f"{run.path} is finished (test accuracy {accuracy:.1%}); delete it to train it again")
        return True
    print_rank_zero(f"going on with the run in {run.path}")
    return False
