"""The command line: one verb, then its flags."""

import errno
import importlib
import io
import os
import sys
from collections.abc import Callable

from kth_lightning import __version__
from kth_lightning.errors import InputError

USAGE = """usage: python -m kth_lightning VERB [flags]; python -m kth_lightning VERB --help

  compare   train, test and compare the three models; with no data given, on the drawn sample
  prepare   fetch and read the pictures of a source, and report what is wrong with them
  explore   show the pictures of a source: examples, colours, counts, augmentation, duplicates
  fit       train one model into a run folder and test its best checkpoint
  validate  evaluate a checkpoint on the validation pictures
  test      evaluate a checkpoint on the test pictures
  report    write the page that shows a run's, or a comparison's, results
  predict   classify pictures with a checkpoint
  explain   show where in the pictures a checkpoint looks
  export    write a checkpoint as ONNX or torch.export file, preprocessing included
  stores    list what was computed once and kept, and delete it

Your own pictures, a folder for each class:  python -m kth_lightning compare --data.root DIR"""


_VERBS = {
    "compare": "training.compare:compare",
    "prepare": "data.command:prepare_command",
    "explore": "explore.command:explore_command",
    "fit": "training.run:train",
    "validate": "training.run:train",
    "test": "training.run:train",
    "report": "results.report:report_command",
    "predict": "use.predict:predict_command",
    "explain": "use.explain:explain_command",
    "export": "use.export:export_command",
    "stores": "training.stores:stores_command",
}


def main(args: list[str] | None = None) -> None:
    """Run a command; ends the process with status 2 after bad input and 130 after Ctrl-C.

    Args:
        args: The words behind `python -m kth_lightning`; those of the process where left out.
    """
    words = sys.argv[1:] if args is None else args
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # class names may have what a terminal's encoding lacks
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "10")
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return
    if words[0] == "--version":
        print(f"kth_lightning {__version__}")
        return
    try:
        _verb(words[0])(words)
    except InputError as error:
        _stop(str(error))
    except KeyboardInterrupt:
        _stop("interrupted; the same command goes on from here", status=130)
    except OSError as error:
        _stop(_of_system(error))
    except (MemoryError, RuntimeError) as error:
        if "EADDRINUSE" in str(error):
            _stop("the port at which the processes of this run meet is taken; set another (MASTER_PORT) and repeat it")
        if _is_of_peers(error):
            _stop(
                "another process of this run has ended or cannot be reached; see what it says, then start the same "
                "command again everywhere: it goes on from the last checkpoint"
            )
        if not _is_of_memory(error):
            raise
        _stop("the memory is exhausted; give a smaller --data.batch_size (predict: --batch_size) or --data.image_size")


def _verb(name: str) -> Callable[[list[str]], object]:
    if name not in _VERBS:
        raise InputError(f"there is no verb {name!r}; the verbs are {', '.join(_VERBS)}")
    module, function = _VERBS[name].split(":")
    # Torch and Lightning take seconds to import; help and mistakes should not.
    run = getattr(importlib.import_module(f"kth_lightning.{module}"), function)
    return run if function == "train" else lambda words: run(words[1:])


def _of_system(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return (
            f"the disk is full ({error.filename or 'while writing'}); make room and repeat the command, which goes on"
        )
    place = error.filename or "a file"
    return f"cannot use {place} ({error.strerror or error}); allow reading and writing there, or name another place"


def _is_of_peers(error: MemoryError | RuntimeError) -> bool:
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error)


def _is_of_memory(error: MemoryError | RuntimeError) -> bool:
    # A GPU's, a CPU's allocator in torch
    return isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error)


def _one_line(sentence: str) -> str:
    """Escape what breaks lines or steers a terminal, which the name of a file may have in it."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in sentence)


def _stop(sentence: str, status: int = 2) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"error: {_one_line(sentence)}", file=sys.stderr)
    sys.exit(status)
