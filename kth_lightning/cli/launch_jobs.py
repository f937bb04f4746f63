"""Jobs of a comparison on an engine: processes of this machine, or jobs at SLURM, both through submitit."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kth_lightning.errors import InputError

_LOCAL_MINUTES = 60 * 24 * 365
_SLURM: dict[str, Any] = {"time": 240, "cpus_per_task": 4}
_TIMES_QUEUED = 10
_GPU_KEYS = {"gpus_per_node", "gpus_per_task", "num_gpus", "gres"}


class FitJob:
    """Carry out a `fit` command as a process of its own, whose words go into a log.

    Args:
        args: The words behind `python -m kth_lightning`.
        log: Appended to.
        environment: What the process gets beside that of the job.
    """

    def __init__(self, args: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.args, self.log, self.environment = list(args), log, dict(environment)

    def __call__(self) -> int:
        """Return its exit status, negative for the signal that ended it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "kth_lightning", *self.args]
        environment = {**os.environ, **self.environment}
        with self.log.open("ab") as log:
            return subprocess.run(
                command, env=environment, stdout=log, stderr=log, check=False, preexec_fn=_leave_signals_to_the_job
            ).returncode

    def checkpoint(self) -> Any:
        """Have SLURM queue the job again at its time limit, or when it is preempted; `fit` goes on by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _leave_signals_to_the_job() -> None:
    # SLURM sends them to all processes of a job; submitit answers by queueing it again.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


class Engine:
    """Start jobs.

    Args:
        kind: "local" or "slurm".
        folder: Of the files that submitit keeps of its jobs; SLURM's machines see it too.
        slurm: KEY=VALUE words, by the names of submitit's parameters, which are sbatch's.
        gpu: Ask SLURM for a GPU a job, where the words do not say.

    Raises:
        InputError: SLURM is not here, or a word cannot be used.
    """

    def __init__(self, kind: str, folder: Path, slurm: Sequence[str], gpu: bool) -> None:
        import submitit

        self.kind, self.folder = kind, folder
        if kind == "local":
            self._executor: Any = submitit.LocalExecutor(folder)
            self._executor.update_parameters(timeout_min=_LOCAL_MINUTES)
            return
        given = dict(map(_parameter, slurm))
        gpus = {"gpus_per_node": 1} if gpu and not given.keys() & _GPU_KEYS else {}
        try:
            self._executor = submitit.SlurmExecutor(folder, max_num_timeout=_TIMES_QUEUED)
        except RuntimeError:
            raise InputError("--launcher slurm: there is no srun here; start it on a machine of the cluster") from None
        try:
            self._executor.update_parameters(**_SLURM | gpus | given)
        except ValueError:
            raise InputError(
                f"--slurm {' '.join(slurm)}: a name is not one of submitit's; it has sbatch's, with _ for -, such as "
                "partition, time, gpus_per_node, cpus_per_task, mem, account, qos, constraint"
            ) from None

    def submit(self, job: FitJob, run_dir: Path) -> Any:
        """Start a job, or queue it; returns submitit's.

        SLURM starts no two jobs of one run folder at once: what an earlier command left there is waited for.

        Args:
            job: The command.
            run_dir: That it writes.

        Raises:
            InputError: SLURM does not take it.
        """
        if self.kind == "local":
            with _errors_into(self.folder / "local.log"):
                return self._executor.submit(job)
        name = hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:8]
        self._executor.update_parameters(job_name=f"{run_dir.name}-{name}", dependency="singleton")
        try:
            return self._executor.submit(job)
        except RuntimeError as error:
            raise InputError(f"SLURM does not take a job: {' '.join(str(error).split())}") from None


def _parameter(word: str) -> tuple[str, Any]:
    name, sign, value = word.partition("=")
    if not (name and sign and value):
        raise InputError(f"--slurm {word}: give KEY=VALUE, such as partition=gpu or time=120")
    name = name.replace("-", "_")
    if name == "time" and not value.isdecimal():
        raise InputError(f"--slurm {word}: give minutes, such as time=120")
    return name, int(value) if value.isdecimal() else True if value == "true" else value


@contextmanager
def _errors_into(file: Path) -> Iterator[None]:
    """Have processes that are started inside write their errors into a file, or Ctrl-C would show their tracebacks."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with file.open("ab") as stream:
            os.dup2(stream.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
