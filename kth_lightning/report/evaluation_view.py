"""What an evaluation says beside its figures: how they differ from the run's own test, and what its images are."""

from collections.abc import Mapping
from typing import Any

from kth_lightning.evaluation.shift import STATISTICS, Shift, shift_sentence
from kth_lightning.report.seen_part import seen_note

_CLASSES_NAMED = 5
_NOT_KNOWN = "not known, since the checkpoint does not say which files it, or what it started from, was trained on"


def evaluation_view(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Gather what the page says of an evaluation.

    Args:
        metrics: As metrics.json has them.

    Returns:
        "sentences"; "shifts", the cells of a table, with "here", what its own column is of; "note", what figures of all
        images must be read with, None where nothing; None for a run's own folder.
    """
    evaluation = metrics.get("evaluation")
    if not evaluation:
        return None
    own = evaluation["own_test"]
    shifts = [] if isinstance(own, str) else _shifts(own)
    return {
        "sentences": evaluation_sentences(evaluation),
        "note": seen_note(metrics),
        "here": "new images here" if shifts and "compared" in own else "images here",
        "shifts": [
            [
                shift.name,
                "–" if shift.then is None else f"{shift.then:.3g}",
                "–" if shift.now is None else f"{shift.now:.3g}",
                f"{shift.distance:.2f}",
                "< 0.001" if shift.p < 0.001 else f"{shift.p:.2g}",
                "yes" if shift.shifted else "not found",
            ]
            for shift in shifts
        ],
    }


def evaluation_sentences(evaluation: Mapping[str, Any]) -> list[str]:
    """Say how an evaluation differs from the run's own test, and what of its images is new to the checkpoint.

    Args:
        evaluation: As metrics.json has it.
    """
    seen = evaluation["seen"]
    new = "new images" if seen is None or seen.get("complete", True) else "images that it is not known to have seen"
    return [*_seen(seen), *_own_test(evaluation["own_test"], new), *_classes(evaluation["classes"])]


def accuracy_text(figures: Mapping[str, Any]) -> str:
    """Write an accuracy with what it is of and its interval."""
    acc, images = figures["acc"], "image" if figures["n"] == 1 else "images"
    interval = f"95 % interval {100 * acc['low']:.1f} to {100 * acc['high']:.1f} %"
    if (acc["low"], acc["high"]) == (0, 1):  # as of one group
        interval = "too few groups for an interval"
    return f"{100 * acc['value']:.1f} % of {figures['n']} {images} ({interval})"


def _own_test(own: Mapping[str, Any] | str, new: str) -> list[str]:
    if isinstance(own, str):
        return [own]
    value, low, high = (100 * own["difference"][name] for name in ("value", "low", "high"))
    says = "the same" if not value else f"{abs(value):.1f} points {'higher' if value > 0 else 'lower'}"
    sure = "which may be chance" if low <= 0 <= high else "which is more than chance"
    # Earlier versions compared all images.
    here, these = (
        (f"the {new} here: {accuracy_text(own['compared'])},", f"the {new} here, ")
        if "compared" in own
        else ("here it is", "")
    )
    return [
        f"the run's own test: {accuracy_text(own)}; {here} {says} (95 % interval of the difference {low:+.1f} to "
        f"{high:+.1f} points), {sure}",
        f"{these}compared with the run's own test images: {shift_sentence(_shifts(own))}{_not_kept(own)}",
    ]


def _not_kept(own: Mapping[str, Any]) -> str:
    known = {row["name"] for row in own["shifts"]}
    lacking = [name for name in STATISTICS if name not in known]
    return f"; the run does not record {', '.join(lacking)} of its test images" if lacking else ""


def _shifts(own: Mapping[str, Any]) -> list[Shift]:
    names = ("name", "then", "now", "distance", "p")
    return [Shift(*(row[name] for name in names)) for row in own["shifts"]]


def _seen(seen: Mapping[str, Any] | None) -> list[str]:
    if seen is None:
        return ["the checkpoint does not say which images it was trained on"]
    if not seen.get("complete", True):
        found = f"at least {seen['trained']} trained on and {seen['chosen']} used to choose the epoch; of others it is "
        return [f"seen in training: {found if seen['trained'] or seen['chosen'] else ''}{_NOT_KNOWN}"]
    tested = seen.get("tested", 0)
    if not seen["trained"] and not seen["chosen"]:
        own = f"; {tested} are in the run's own test" if tested else ""
        none = "none of the images (files are compared byte for byte: a resized copy counts as new)"
        return [f"seen in training: {none}{own}"]
    own = f"; {tested} of these are in the run's own test" if tested else ""
    alone = f"accuracy on the others: {accuracy_text(seen['new'])}{own}" if seen["new"] else "no other image is left"
    return [f"seen in training: {seen['trained']} trained on, {seen['chosen']} used to choose the epoch; {alone}"]


def _classes(classes: Mapping[str, Any]) -> list[str]:
    sentences = []
    if unknown := classes["unknown"]:
        named = [
            f"{label} ({sum(taken.values())}: taken for {', '.join(f'{name} {count}' for name, count in _most(taken))})"
            for label, taken in _largest(unknown)
        ]
        more = f" and {len(unknown) - _CLASSES_NAMED} other classes" if len(unknown) > _CLASSES_NAMED else ""
        count = sum(sum(taken.values()) for taken in unknown.values())
        sentences.append(
            f"classes that the checkpoint does not know: {count} images, in no figure here: {', '.join(named)}{more}; "
            "see unknown_classes.csv"
        )
    if missing := classes["missing"]:
        sentences.append(f"classes without an image here: {', '.join(missing)}")
    return sentences


def _largest(unknown: Mapping[str, Mapping[str, int]]) -> list[tuple[str, Mapping[str, int]]]:
    return sorted(unknown.items(), key=lambda item: -sum(item[1].values()))[:_CLASSES_NAMED]


def _most(taken: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(taken.items(), key=lambda item: -item[1])[:_CLASSES_NAMED]
