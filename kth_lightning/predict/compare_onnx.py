"""Two ONNX files of one classifier on the same images: how large, how fast, how often right."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kth_lightning.errors import InputError
from kth_lightning.evaluation.calibration import expected_calibration_error
from kth_lightning.evaluation.clusters import (
    cluster_numbers,
    clustered_estimate,
    clustered_paired_test,
    summarise_groups,
)
from kth_lightning.evaluation.statistics import Estimate, estimate, mcnemar

ON_ONE_THREAD = 32
"""Images on which the time with one thread is taken; with all threads, all are."""

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FileFigures:
    """Hold what one of two compared files is worth.

    Attributes:
        bytes: Its size.
        acc: Share of the images that it classifies correctly, with its 95 % interval.
        loss: Mean cross-entropy in nats.
        ece: Expected calibration error.
        ms_one_thread: Median time of an image in milliseconds, resizing included, with one thread.
        ms_all_threads: The same with as many threads as ONNX Runtime takes.
        novelty: Mean novelty of the images; None where the files do not tell it.
    """

    bytes: int
    acc: Estimate
    loss: float
    ece: float
    ms_one_thread: float
    ms_all_threads: float
    novelty: float | None


@dataclass(frozen=True)
class OnnxComparison:
    """Hold what two files say of the same images.

    Attributes:
        n: Number of images.
        cores: Of the machine that took the times.
        first: Figures of the first file.
        second: Figures of the second.
        both_right: Number of images that both classify correctly.
        only_first_right: That the first alone does.
        only_second_right: That the second alone does.
        neither_right: That neither does.
        points_lost: The first's accuracy less the second's in percentage points, with its 95 % interval: a bootstrap
            over the images, or over their groups.
        p: Of McNemar's exact test, or with groups of that of whole groups.
        same_label: Share of the images to which both give one label.
        probability_difference: Mean over the images of the largest difference of a probability.
        novelty_difference: Mean difference of the novelty, without its sign; None where the files do not tell it.
    """

    n: int
    cores: int
    first: FileFigures
    second: FileFigures
    both_right: int
    only_first_right: int
    only_second_right: int
    neither_right: int
    points_lost: Estimate
    p: float
    same_label: float
    probability_difference: float
    novelty_difference: float | None

    def as_json(self) -> dict[str, Any]:
        """Return plain nested values."""
        return asdict(self)


@dataclass
class _Answers:
    probabilities: list[npt.NDArray[np.float32]]
    novelty: list[float]
    seconds: list[float]


def compare_onnx(
    first: Path,
    second: Path,
    images: Iterable[tuple[Image, int]],
    groups: Sequence[str] = (),
) -> OnnxComparison:
    """Run two exported ONNX files on the same images, one image at a time and in turns.

    Args:
        first: As `export` writes it.
        second: The same classifier's.
        images: uint8 [H, W, 3] of any sizes, each with the index of its class.
        groups: Name of each image's group, empty where it has none; none at all for images without groups.

    Raises:
        InputError: There is no image.
    """
    labels: list[int] = []
    kept: list[Image] = []

    def watched() -> Iterator[Image]:
        for image, label in images:
            labels.append(label)
            if len(kept) < ON_ONE_THREAD:
                kept.append(image)
            yield image

    files = (first, second)
    answers = _run_in_turns(files, watched(), threads=0)
    if not labels:
        raise InputError("there is no image to compare the files on; name some")
    alone = _run_in_turns(files, kept, threads=1)
    truth = np.array(labels)
    one, other = (np.stack(item.probabilities) for item in answers)
    right, other_right = one.argmax(1) == truth, other.argmax(1) == truth
    clusters = cluster_numbers(groups)
    loss = 100 * (right.astype(np.float64) - other_right)
    test = mcnemar(right, other_right) if clusters is None else clustered_paired_test(right, other_right, clusters)
    novelty = [np.array(item.novelty) for item in answers]
    return OnnxComparison(
        n=len(truth),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        first=_figures(first, truth, groups, answers[0], alone[0]),
        second=_figures(second, truth, groups, answers[1], alone[1]),
        both_right=int((right & other_right).sum()),
        only_first_right=test.first_only,
        only_second_right=test.second_only,
        neither_right=int((~right & ~other_right).sum()),
        points_lost=estimate(lambda picks: loss[picks].mean(), len(loss))
        if clusters is None
        else clustered_estimate(lambda picks: loss[picks].mean(), clusters),
        p=test.p,
        same_label=float((one.argmax(1) == other.argmax(1)).mean()),
        probability_difference=float(np.abs(one - other).max(axis=1).mean()),
        novelty_difference=float(np.abs(novelty[0] - novelty[1]).mean()) if len(novelty[0]) else None,
    )


def _run_in_turns(files: Sequence[Path], images: Iterable[Image], threads: int) -> list[_Answers]:
    """Give every image to both files, the first and the second one ahead by turns.

    Args:
        files: Two.
        images: uint8 [H, W, 3].
        threads: For each step; 0 for ONNX Runtime's choice.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions = [onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]) for file in files]
    answers = [_Answers([], [], []) for _ in files]
    for position, image in enumerate(images):
        for place in (0, 1) if position % 2 else (1, 0):
            start = time.perf_counter()
            (probabilities,), *novelty = sessions[place].run(None, {"images": image[None]})
            answers[place].seconds.append(time.perf_counter() - start)
            answers[place].probabilities.append(probabilities)
            answers[place].novelty += [float(item[0]) for item in novelty]
    return answers


def _figures(
    file: Path, labels: npt.NDArray[np.int64], groups: Sequence[str], answers: _Answers, alone: _Answers
) -> FileFigures:
    probabilities = np.stack(answers.probabilities)
    summary = summarise_groups(labels, probabilities, groups)
    return FileFigures(
        bytes=file.stat().st_size,
        acc=summary["acc"],
        loss=summary["loss"]["value"],
        ece=expected_calibration_error(labels, probabilities),
        ms_one_thread=1000 * float(np.median(alone.seconds)),
        ms_all_threads=1000 * float(np.median(answers.seconds)),
        novelty=float(np.mean(answers.novelty)) if answers.novelty else None,
    )
