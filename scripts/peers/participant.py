"""A process that takes part in the benchmark, seen from outside."""

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Participant:
    """A process that trains in its turns and is stopped between them.

    Args:
        name: Of the participant, for messages.
        command: What starts it.
        task: What it is told to do.
        settings: Environment variables.
        said: File for what it prints.

    Raises:
        RuntimeError: It has ended, with its last words.
    """

    def __init__(self, name: str, command: list[str], task: dict[str, Any], settings: dict[str, str], said: Path):
        self.name = name
        self.said = said
        with said.open("w") as stream:
            # In a session of its own, so that the processes that load its images are stopped with it.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                cwd=ROOT,
                env=os.environ | settings,
                text=True,
                start_new_session=True,
            )
        self.per_unit: list[float] = []
        self.per_image: list[float] = []
        try:
            self.facts = self._ask(task)
        except BaseException:
            self.close()
            raise
        os.killpg(self._process.pid, signal.SIGSTOP)

    def turn(self, untimed: int, timed: int) -> None:
        """Let it work: through some batches or epochs that do not count, and some that do."""
        os.killpg(self._process.pid, signal.SIGCONT)
        answer = self._ask({"untimed": untimed, "timed": timed})
        os.killpg(self._process.pid, signal.SIGSTOP)
        if timed:
            self.per_unit.append(answer["seconds"] / timed)
            self.per_image.append(answer["seconds"] / answer["images"])

    def end(self) -> None:
        """Take its last facts, the peak of its memory among them."""
        os.killpg(self._process.pid, signal.SIGCONT)
        self.facts |= self._ask({})

    def close(self) -> None:
        """End it and all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            argv = self.said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"{self.name} has ended: {' '.join(argv) or 'without a word'}")
        return json.loads(line)
