"""Carry out the parts of a comparison side by side, and say how far they are."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from kth_lightning.cli.launch_jobs import Engine, FitJob
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.terminal import print_rank_zero

LOGS = "logs"
"""Folder in that of a comparison: a log of each part."""

_JOBS = "jobs"
_POLL_SECONDS = 0.5
_STATUS_SECONDS = 60.0
_SECONDS_TO_END = 10.0


@dataclass(frozen=True, eq=False)
class Step:
    """Name a training of a comparison.

    Attributes:
        run: Its folder.
        args: The words behind `python -m kth_lightning`.
        needs: The run that it begins from.
        features: Stands for what its trunk computes of an image, which is kept on the disk; None for nothing.
    """

    run: RunFolder
    args: list[str]
    needs: RunFolder | None = None
    features: Hashable = None


def check_launcher(options: Namespace) -> None:
    """Refuse flags that do not go together, and an engine that is not installed.

    Raises:
        InputError: They do not.
    """
    if options.launcher is None:
        for name in ("parallel", "slurm"):
            if getattr(options, name) is not None:
                raise InputError(f"--{name} goes with --launcher local or --launcher slurm; give one")
        return
    if options.slurm and options.launcher != "slurm":
        raise InputError("--slurm goes with --launcher slurm; leave it out")
    if options.parallel is not None and options.parallel < 1:
        raise InputError(f"--parallel {options.parallel}: give at least 1")
    if str(options.trainer.devices) not in ("auto", "1") or options.trainer.num_nodes != 1:
        raise InputError(
            "--launcher trains every model on one device; leave out --trainer.devices and --trainer.num_nodes"
        )
    if find_spec("submitit") is None:
        raise InputError(
            "--launcher needs a package that is not installed; run uv pip install '.[launcher]' in the clone"
        )


def launch(steps: Sequence[Step], options: Namespace, folder: Path) -> None:
    """Carry out steps side by side, each on one device; a step that fails stops those alone that begin from it.

    Args:
        steps: Those that others need first; none of them has ended before.
        options: Of the command: launcher, parallel, slurm and trainer.
        folder: Of the comparison.

    Raises:
        InputError: A step failed, when all others have ended; or the engine cannot be used.
        KeyboardInterrupt: Ctrl-C, or the system's request to end; what was started is ended too.
    """
    if not steps:
        return
    jobs = folder / LOGS / _JOBS
    jobs.mkdir(parents=True, exist_ok=True)
    engine = Engine(options.launcher, jobs, options.slurm or [], gpu=options.trainer.accelerator != "cpu")
    gpus = _gpus() if options.launcher == "local" and options.trainer.accelerator != "cpu" else []
    at_once = options.parallel or (max(1, len(gpus)) if options.launcher == "local" else len(steps))
    # What a shell has put in the background ignores SIGINT, and its jobs would take that over and not be ended.
    before = {name: signal.signal(name, signal.default_int_handler) for name in (signal.SIGINT, signal.SIGTERM)}
    work = _Launched(list(steps), engine, folder, at_once, gpus)
    try:
        work.carry_out()
    except BaseException:
        work.cancel()
        raise
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
    if work.failed:
        raise InputError(
            f"{len(work.failed)} of {len(steps)} trainings failed or were left out; the others are done and kept. "
            "There is no table yet: the same command goes on with what is missing"
        )
    shutil.rmtree(jobs, ignore_errors=True)


@dataclass
class _Launched:
    """Keep count of steps: which wait, are at work, have ended well, and have not."""

    waiting: list[Step]
    engine: Engine
    folder: Path
    at_once: int
    gpus: list[str]
    running: dict[Step, tuple[Any, int]] = field(default_factory=dict)
    done: list[Step] = field(default_factory=list)
    failed: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.filling = {step.features: step for step in reversed(self.waiting) if step.features is not None}

    def carry_out(self) -> None:
        said = time.monotonic()
        while self.waiting or self.running:
            for step in [step for step, (job, _) in self.running.items() if job.done()]:
                self._end(step, self.running.pop(step)[0])
            self._leave_out()
            while len(self.running) < self.at_once and (ready := next(filter(self._ready, self.waiting), None)):
                self._start(ready)
            if time.monotonic() - said >= _STATUS_SECONDS:
                said = time.monotonic()
                counts = f"{len(self.done)} done, {len(self.running)} at work, {len(self.waiting)} waiting"
                print_rank_zero(counts + (f", {len(self.failed)} failed" if self.failed else ""))
                for step in self.running:
                    if lines := _lines(self._log(step)):
                        print_rank_zero(f"  {self._name(step)}: {lines[-1]}")
            time.sleep(_POLL_SECONDS)

    def cancel(self) -> None:
        """End what was started, and wait until it has, so that the command can be repeated at once."""
        if not self.running:
            return
        for job, _ in self.running.values():
            job.cancel(check=False)
        what = "cancelled at SLURM" if self.engine.kind == "slurm" else "stopped"
        print_rank_zero(f"{what}: {', '.join(map(self._name, self.running))}")
        deadline = time.monotonic() + _SECONDS_TO_END
        while self.engine.kind == "local" and time.monotonic() < deadline:
            if all(job.done() for job, _ in self.running.values()):
                return
            time.sleep(_POLL_SECONDS)

    def _ready(self, step: Step) -> bool:
        """Tell whether nothing has to end before: what it begins from, and the first that computes its features."""
        unfinished = [*self.waiting, *self.running]
        first = self.filling.get(step.features)
        return not (any(step.needs == other.run for other in unfinished) or (first in unfinished and first is not step))

    def _start(self, step: Step) -> None:
        self.waiting.remove(step)
        taken = {slot for _, slot in self.running.values()}
        slot = next(number for number in range(self.at_once) if number not in taken)
        environment: dict[str, str] = {}
        where = "at SLURM"
        if self.engine.kind == "local":
            environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(max(1, _cores() // self.at_once)))
            where = "on the CPU"
            if self.gpus:
                environment["CUDA_VISIBLE_DEVICES"] = gpu = self.gpus[slot % len(self.gpus)]
                where = f"on GPU {gpu}"
        job = self.engine.submit(FitJob(step.args, self._log(step).resolve(), environment), step.run.path)
        self.running[step] = job, slot
        queued = f"queued as job {job.job_id}" if self.engine.kind == "slurm" else "started"
        print_rank_zero(f"{self._name(step)}: {queued} {where}; it writes {self._log(step)}")

    def _end(self, step: Step, job: Any) -> None:
        if not (reason := _failure(job, self._log(step))):
            self.done.append(step)
            figures = ""
            if step.run.finished:  # a network disk may show its files somewhat later
                test = step.run.read_metrics()["test"]
                figures = f", {100 * test['acc']['value']:.1f} % of {test['n']} test images right"
            print_rank_zero(f"{self._name(step)}: done{figures}")
            return
        self.failed.append(step)
        print_rank_zero(f"warning: {self._name(step)} failed: {reason}")

    def _leave_out(self) -> None:
        for step in [step for step in self.waiting if any(step.needs == other.run for other in self.failed)]:
            self.waiting.remove(step)
            self.failed.append(step)
            head = next(self._name(other) for other in self.failed if other.run == step.needs)
            print_rank_zero(f"warning: {self._name(step)} is left out: it begins from {head}, which failed")

    def _name(self, step: Step) -> str:
        return step.run.path.relative_to(self.folder).as_posix()

    def _log(self, step: Step) -> Path:
        return self.folder / LOGS / f"{self._name(step)}.log"


def _failure(job: Any, log: Path) -> str:
    """Say why a job failed and where more stands; nothing if it did not."""
    if job.exception() is not None:
        return f"its job ended before it did ({job.state}); see {job.paths.stderr} and {log}"
    status = job.result()
    if status == 0:
        return ""
    lines = _lines(log)
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    sentence = (errors or lines or ["it wrote nothing"])[-1]
    if status < 0:
        sentence = f"ended by {signal.Signals(-status).name}; its last line is: {sentence}"
    return f"{sentence} ({log})"


def _lines(log: Path) -> list[str]:
    """Return what a job has written, or nothing where it has not begun."""
    if not log.exists():  # it waits in a queue, or a network disk shows it later
        return []
    return [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


def _gpus() -> list[str]:
    """Name the GPUs that this process sees, as CUDA_VISIBLE_DEVICES does."""
    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[:count] if given else [str(number) for number in range(count)]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
