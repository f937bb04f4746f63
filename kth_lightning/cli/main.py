"""The command line: one command, then its flags."""

import errno
import gc
import importlib
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from kth_lightning import __version__
from kth_lightning.cli.help_page import for_parser, help_page
from kth_lightning.errors import InputError
from kth_lightning.io.terminal import printable

USAGE = """usage: python -m kth_lightning COMMAND [flags]

Train image classifiers on a few hundred images a class, and find out how good they are.

  fit       train a classifier on your images and test it
  predict   classify images with a trained classifier
  explain   show where in the images a classifier looks
  demo      show a page that classifies the images that are dropped on it
  compare   train several models on the same images and compare them
  learning_curve
            train on growing shares of the images, and say what more images would give
  explore   show your images before training: examples, colours, counts, duplicates
  prepare   read all images and say which are broken or duplicates
  report    write the results of a run or of a comparison as one HTML page
  test      test a trained classifier on new images, or on those of its run
  validate  evaluate a trained classifier on validation images
  export    write a checkpoint as an ONNX or torch.export file for other programs
  stores    list or delete what is kept on the disk so that it is computed only once

examples
  python -m kth_lightning fit --data.root photos    (photos has one folder of images for each class)
  python -m kth_lightning compare                   (draws a set of animals to try it out)

flags and examples of a command: python -m kth_lightning COMMAND --help"""


COMMANDS = {
    "compare": "cli.compare:compare",
    "learning_curve": "cli.learning_curve:learning_curve_command",
    "prepare": "cli.prepare:prepare_command",
    "explore": "cli.explore:explore_command",
    "fit": "cli.fit:fit_command",
    "validate": "cli.evaluate:evaluate_command",
    "test": "cli.evaluate:evaluate_command",
    "report": "cli.report:report_command",
    "predict": "cli.predict:predict_command",
    "explain": "cli.explain:explain_command",
    "demo": "cli.demo:demo_command",
    "export": "cli.export:export_command",
    "stores": "cli.stores:stores_command",
}


_SIGPIPE = 13  # which would have ended a program that does not look at what its writing came to


def main(args: list[str] | None = None) -> None:
    """Run a command; ends the process with status 2 after bad input and 130 after Ctrl-C.

    Nobody reading on what it prints (`| head`) is no error.

    Args:
        args: The words behind `python -m kth_lightning`; those of the process where left out.
    """
    try:
        _run(args)
        sys.stdout.flush()
    except BrokenPipeError as error:
        closed = [stream for stream in (sys.stdout, sys.stderr) if _is_closed(stream)]
        if not closed:
            _stop(_of_system(error))
        for stream in closed:  # or the interpreter would complain once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if sys.stderr in closed:  # in the middle of the work, for results go to the other
            sys.exit(128 + _SIGPIPE)


def _is_closed(stream: TextIO) -> bool:
    """Tell whether nobody reads any more what is written; only Unix has such a question."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _run(args: list[str] | None) -> None:
    argv = sys.argv[1:] if args is None else args
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # class names may have what a terminal's encoding lacks
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # they would fill a log file
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    if argv[0] == "--version":
        print(f"kth_lightning {__version__}")
        return
    try:
        run = _command(argv[0])
        if (page := help_page(argv)) is not None:
            print(page)
            return
        run(for_parser(argv))
    except InputError as error:
        _stop(str(error))
    except KeyboardInterrupt:
        _stop("interrupted; repeat the command, which resumes where it can", status=130)
    except BrokenPipeError:
        raise
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
        if "ddp_find_unused_parameters_true" in str(error):
            _stop(
                "--model: a training step did not use all parameters of the network, which several processes need; "
                "remove what its tail does not use, or give --trainer.strategy ddp_find_unused_parameters_true"
            )
        if not _is_of_memory(error):
            raise
        _stop(
            "the memory is exhausted; give a smaller --data.batch_size (predict: --batch_size) or, in training, "
            "--data.image_size"
        )


def _command(name: str) -> Callable[[list[str]], object]:
    if name not in COMMANDS:
        raise InputError(f"there is no command {name!r}; the commands are {', '.join(COMMANDS)}")
    module, function = COMMANDS[name].split(":")

    def run(argv: list[str]) -> None:
        # Torch and Lightning take seconds to import; help and mistakes should not.
        with _without_collection():
            command = getattr(importlib.import_module(f"kth_lightning.{module}"), function)
        gc.freeze()  # half a million objects were imported, and every whole collection would look at them
        try:
            command(argv if module in ("cli.fit", "cli.evaluate") else argv[1:])
        finally:
            gc.unfreeze()

    return run


@contextmanager
def _without_collection() -> Iterator[None]:
    """Keep the garbage collector out of imports, a fifth of whose time it takes."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _of_system(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return (
            f"the disk is full ({error.filename or 'while writing'}); make room and repeat the command, which goes on"
        )
    position = error.filename or "a file"
    return f"cannot use {position} ({error.strerror or error}); allow reading and writing there, or name another place"


def _is_of_peers(error: MemoryError | RuntimeError) -> bool:
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error)


def _is_of_memory(error: MemoryError | RuntimeError) -> bool:
    # A GPU's, its matrix library's, a CPU's allocator in torch
    words = ("out of memory", "STATUS_ALLOC_FAILED", "can't allocate memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def _stop(sentence: str, status: int = 2) -> None:
    line = printable(sentence).replace("\n", "\\n")
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"error: {line}", file=sys.stderr)
    sys.exit(status)
