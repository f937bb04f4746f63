"""The command `demo`: a page in the browser that classifies the images that are dropped on it."""

import os
import signal
import socket
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from kth_lightning.cli.checkpoint_flags import add_calibrated_flag, add_checkpoint_flags, import_model_class
from kth_lightning.cli.parser import Parser
from kth_lightning.cli.predict import choose_devices
from kth_lightning.errors import InputError
from kth_lightning.predict.answer_cards import answer_cards
from kth_lightning.predict.predictor import Predictor

_FILES = 20  # at once, of one person
_WAITING = 32  # requests; who comes then is asked to come back
_MAX_PIXELS = 50_000_000
_KEPT = 60  # seconds; what a browser uploads and never asks about


def demo_command(argv: list[str]) -> None:
    """Show a page that classifies images until it is stopped with Ctrl-C.

    Args:
        argv: The command line behind `demo`.

    Raises:
        InputError: The checkpoint or a setting cannot be used, the port is taken, or Gradio is not installed.
    """
    options = _parser().parse_args(argv)
    if not 1 <= options.max_mb <= 1000:
        raise InputError(f"--max_mb {options.max_mb}: give a number from 1 to 1000")
    if options.port is not None and not 1 <= options.port <= 65535:
        raise InputError(f"--port {options.port}: give a number from 1 to 65535, or leave it out")
    if find_spec("gradio") is None:
        raise InputError("demo needs a package that is not installed; run uv pip install '.[demo]' in the clone")
    _require_host(options.host)
    device, kind = choose_devices(options.accelerator, 1), import_model_class(options.model_class)
    predictor = Predictor(options.ckpt_path, device, options.calibrated, max_pixels=_MAX_PIXELS, model_class=kind)
    with tempfile.TemporaryDirectory(prefix="kth-lightning-demo-") as uploads:
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False"}  # read where it is imported
        page, look = _page(predictor, Path(uploads))
        try:
            _, address, _ = page.launch(
                server_name=options.host,
                server_port=options.port,
                share=False,
                prevent_thread_lock=True,
                quiet=True,
                ssr_mode=False,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                max_file_size=options.max_mb * 2**20,
                **look,
            )
        except OSError:
            taken = f"--port {options.port}" if options.port else "--port: every port from 7860 to 7959"
            raise InputError(
                f"{taken} cannot be used at --host {options.host}; give another --port, or stop what uses it"
            ) from None
        print(f"the demo is at {address} (Ctrl-C ends it)", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that uploads go with the page, however it ends
        page.block_thread()


def _require_host(host: str) -> None:
    try:
        socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise InputError(f"--host {host} is no address of this machine ({error.strerror}); leave it out") from None


def _parser() -> Parser:
    parser = Parser(
        prog="python -m kth_lightning demo",
        description="Show a page in the browser that classifies the images that are dropped on it.",
    )
    add_checkpoint_flags(parser)
    parser.add_argument("--port", type=int | None, default=None, help="Port of the page; a free one from 7860 on.")
    parser.add_argument(
        "--host",
        type=str,
        default="127.0.0.1",
        help="Address that the page is served at. The default can be reached from this machine only; 0.0.0.0 from "
        "every machine of the network, without a password.",
    )
    parser.add_argument("--max_mb", type=int, default=20, help="Largest image file, in megabytes.")
    add_calibrated_flag(parser)
    parser.add_argument(
        "--accelerator", type=Literal["auto", "cpu", "gpu"], default="auto", help="Device to compute on."
    )
    return parser


def _page(predictor: Predictor, uploads: Path) -> tuple[Any, dict[str, Any]]:
    """Make the page, and what it looks like."""
    import gradio

    def answer(files: Sequence[str] | None) -> tuple[None, str]:
        paths = [Path(file) for file in files or ()]
        remarks = [f"only the first {_FILES} of {len(paths)} images"] if len(paths) > _FILES else []
        remarks += ["the classifier was trained on boxes cut out of images; drop such boxes"] if predictor.boxed else []
        try:
            return None, answer_cards(predictor, paths[:_FILES], remark="; ".join(remarks))
        finally:
            for path in paths:
                if path.is_relative_to(uploads):
                    path.unlink(missing_ok=True)

    classes = predictor.class_names
    named = ", ".join(classes[:12]) + (f" and {len(classes) - 12} more" if len(classes) > 12 else "")
    with gradio.Blocks(analytics_enabled=False, title="kth_lightning", delete_cache=(_KEPT, _KEPT)) as page:
        gradio.Markdown(
            "# What is in this image?\n\nThe answer is the most probable class; yellow shows where the classifier "
            f"looks. It knows {len(classes)} classes:"
        )
        gradio.Text(named, show_label=False, container=False, interactive=False)
        drop = gradio.File(label="Images", file_count="multiple", height=160)
        cards = gradio.HTML()
        # One request after another: a network's maps are read off it while it computes.
        drop.upload(answer, drop, [drop, cards], concurrency_limit=1, api_visibility="private")
    page.queue(max_size=_WAITING)
    fonts = ["system-ui", "sans-serif"]  # of the visitor's machine, not from another host
    return page, {"theme": gradio.themes.Base(font=fonts, font_mono=["monospace"])}
