"""What a learning curve comes to, in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

_NAMES = {"acc": "accuracy", "loss": "cross-entropy"}
_TIMES = {2: "twice", 4: "four times"}
_NAMED = 4


def size_sentence(images: float, acc: Mapping[str, float], loss: float) -> str:
    """Say what one size has come to."""
    return f"{a_class(images)}: accuracy {percent(acc)}, cross-entropy {loss:.3g}"


def prediction_sentences(outcome: Mapping[str, Any]) -> list[str]:
    """Say what more images would give, or why that cannot be told."""
    now = outcome["sizes"][-1]
    sentences: list[str] = []
    for name, said in _NAMES.items():
        write = percent if name == "acc" else bounded
        lead = f"{said} now ({a_class(now['images'])}): {write(now[name])}"
        if curve := outcome[name]:
            told = "; ".join(f"with {_TIMES[row['times']]} as many: {write(row)}" for row in curve["predictions"])
            sentences.append(f"{lead}; {told}")
        else:
            sentences.append(f"{lead}; what more would give cannot be estimated: {outcome['why'][name]}")
    return sentences


def check_sentence(outcome: Mapping[str, Any], name: str) -> str:
    """Say how well up to half of the images told what all of them gave; empty where nothing was told."""
    if not outcome[name]:
        return ""
    form, checks = outcome[name]["form"], outcome[name]["checks"]
    check = checks[form]
    told = {"value": check["told"], "low": check["low"], "high": check["high"]}
    shown = percent(told) if name == "acc" else bounded(told)

    def short(value: float) -> str:
        return f"{100 * value:.1f} %" if name == "acc" else f"{value:.3g}"

    others = "".join(f" (a {other}: {short(item['told'])})" for other, item in checks.items() if other != form)
    return (
        f"{_NAMES[name]}: up to half of the images predicted {shown} for all, {short(check['came'])} was measured; "
        f"it is a {form}, the form that came closer{others}"
    )


def class_sentence(outcome: Mapping[str, Any]) -> str:
    """Name the class that twice as many images would help most, and those that may gain as much."""
    classes = outcome["classes"]
    if not classes:
        return "which class would gain most cannot be estimated"
    first, alike = classes[0], [row["name"] for row in classes if row["alike"]]
    if len(alike) == len(classes) - 1:
        return "no class would clearly gain more than the others"
    points = [f"{100 * first[name]:+.1f}" for name in ("gain", "low", "high")]
    gain = f"{first['name']} ({points[0]} points of recall, {points[1]} to {points[2]})"
    if not alike:
        return f"the class that gains most: {gain}"
    return f"the class that gains most: {gain}, not clearly more than {_listed(alike)}"


def a_class(images: float) -> str:
    """Name a number of training images of a class."""
    return f"{images:.3g} images a class"


def percent(row: Mapping[str, float]) -> str:
    """Write an accuracy with its interval."""
    return f"{100 * row['value']:.1f} % ({100 * row['low']:.1f}–{100 * row['high']:.1f})"


def bounded(row: Mapping[str, float]) -> str:
    """Write another figure with its interval."""
    return f"{row['value']:.3g} ({row['low']:.3g}–{row['high']:.3g})"


def _listed(names: Sequence[str]) -> str:
    shown, more = list(names[:_NAMED]), len(names) - _NAMED
    if more > 0:
        return f"{', '.join(shown)} and {more} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
