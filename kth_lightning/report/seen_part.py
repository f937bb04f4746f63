"""What a report says of an evaluation some of whose images the checkpoint has seen in training."""

from collections.abc import Mapping
from typing import Any


def seen_clause(metrics: Mapping[str, Any]) -> str | None:
    """Say how many of an evaluation's images are no test of the checkpoint.

    Args:
        metrics: As metrics.json has them.

    Returns:
        None where none is known to be, and of a run's own test.
    """
    seen = _seen(metrics)
    if seen is None:
        return None
    count = seen["trained"] + seen["chosen"]
    number = "all" if count == metrics["test"]["n"] else str(count) if _complete(seen) else f"at least {count}"
    verb = "seen in training" if seen["trained"] else "used to choose the epoch"
    return f"{number} of which {'was' if count == 1 else 'were'} {verb}"


def seen_note(metrics: Mapping[str, Any]) -> str | None:
    """Say of which images figures are that count both seen and other ones; None where there are not both."""
    seen, number = _seen(metrics), metrics["test"]["n"]
    if seen is None or seen["trained"] + seen["chosen"] == number:
        return None
    return f"Of all {number} images here, {seen_clause(metrics)}."


def seen_heading(name: str, metrics: Mapping[str, Any], uneven: bool) -> str | None:
    """Say how well a model does on the images that it has not seen; None where no image is known to be seen.

    Args:
        name: What the model is called.
        metrics: As metrics.json has them.
        uneven: Say macro recall, since the classes are uneven.
    """
    clause = seen_clause(metrics)
    if clause is None:
        return None
    unseen = metrics["evaluation"]["seen"]["new"]
    if not unseen:
        return f"{name} classifies {_result(metrics['test'], '', uneven)} correctly, {clause}"
    return f"{name} classifies {_result(unseen, 'unseen ', uneven)} correctly"


def seen_lead(metrics: Mapping[str, Any]) -> list[str]:
    """Warn of the images that are no test; nothing where none is known to be seen."""
    seen = _seen(metrics)
    if seen is None:
        return []
    unseen, every = seen["new"], metrics["test"]
    least, here = "" if _complete(seen) else "at least ", f"of the {every['n']} images here"
    chosen = f"its epoch was chosen by {least}{seen['chosen']}" if seen["chosen"] else ""
    if seen["trained"]:
        also = f", and {chosen}" if chosen else ""
        sentences = [
            f"It was trained on {least}{seen['trained']} {here}{also}: figures that count these say nothing about new "
            "images."
        ]
    else:
        sentences = [f"I{chosen[1:]} {here}, which favours them."]
    if unseen and seen.get("tested"):
        are = "is" if seen["tested"] == 1 else "are"
        sentences.append(f"{seen['tested']} of the {unseen['n']} unseen ones {are} in its run's own test.")
    if unseen:
        sentences.append(f"Of all {every['n']} it classifies {100 * every['acc']['value']:.1f} % correctly.")
    return sentences


def unseen_figures(entry: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a model's figures on the images that it has not seen.

    Args:
        entry: Its figures on all images, as `table.figures` makes them.
        metrics: As metrics.json has them.

    Returns:
        None where no image is known to be seen, or where no other is left.
    """
    seen = _seen(metrics)
    if seen is None or not seen["new"]:
        return None
    return {name: value for name, value in entry.items() if name != "groups"} | seen["new"]


def table_entries(entry: dict[str, Any], metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an evaluation's table: of the unseen images and of all, where these differ."""
    unseen = unseen_figures(entry, metrics)
    if unseen is None:
        return [entry]
    every = {name: value for name, value in entry.items() if name != "article"}
    return [
        unseen | {"model": f"{entry['model']}, {unseen['n']} unseen"},
        every | {"model": f"{entry['model']}, all {entry['n']}"},
    ]


def _seen(metrics: Mapping[str, Any]) -> Mapping[str, Any] | None:
    seen = (metrics.get("evaluation") or {}).get("seen")
    return seen if seen and seen["trained"] + seen["chosen"] else None


def _complete(seen: Mapping[str, Any]) -> bool:
    return bool(seen.get("complete", True))


def _result(figures: Mapping[str, Any], kind: str, uneven: bool) -> str:
    number = figures["n"]
    images = f"{kind}image" if number == 1 else f"{kind}images"
    if uneven:
        return f"an average of {100 * figures['recall']['value']:.1f} % of each class's {kind}images"
    return f"{round(figures['acc']['value'] * number)} of {number} {images}"
