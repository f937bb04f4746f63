"""What was measured, as tables and as judgements."""

import statistics
from collections import defaultdict
from typing import Any

import tabulate
from peers.cases import ARTICLE_ALL, ARTICLE_EPOCHS, ARTICLE_TRAIN, CASES, FLOORS

OURS = "kth_lightning"


def report(record: dict[str, Any]) -> list[str]:
    """Print the tables, add their figures to the record, and return which floors were missed."""
    rows, missed = [], []
    record["ratios"] = ratios = []
    for pair in record["pairs"]:
        case, peer, found = pair["case"], pair["peer"], pair["participants"]
        unit = "epoch" if CASES[case].unit == "epoch" else "image"
        theirs = statistics.median(found[peer][f"seconds_per_{unit}"])
        for way in CASES[case].ours:
            ours, floor = statistics.median(found[way][f"seconds_per_{unit}"]), FLOORS.get(peer, {}).get(way)
            ratio = theirs / ours
            ratios.append({"case": way, "peer": peer, "ours": ours, "theirs": theirs, "ratio": ratio, "floor": floor})
            row = [way, peer, f"s a{'n' * (unit == 'epoch')} {unit}", f"{ours:.3g}", f"{theirs:.3g}", f"{ratio:.2f}"]
            row += [f"{floor:.2f}" if floor else ""]
            row += [f"{found[item]['peak_memory'] / 1e9:.2f}" for item in (way, peer)]
            rows.append([*row, f"{found[way]['parameters']:,}", found[way]["device"], found[peer]["device"]])
            if floor and ratio < floor:
                missed.append(f"{way} is {ratio:.2f} times as fast as {peer}; the floor is {floor:.2f}")
    header = ["case", "peer", "unit", "ours", "peer's", "ratio", "floor", "our peak, GB", "its peak, GB", "parameters"]
    _print(rows, [*header, "our device", "its device"])
    record["work"] = _work(record)
    rows = []
    for way, figures in record["work"].items():
        peak = _peaks(record)["fp32" if figures["precision"] == "32-true" else "bf16"]
        numbers = [f"{figures['flops_per_image'] / 1e9:.3g}", f"{figures['flops_per_second'] / 1e9:.3g}"]
        share = f"{figures['flops_per_second'] / peak:.1%} of {peak / 1e9:.0f}"
        rows.append([way, figures["precision"], *numbers, share])
    _print(rows, ["ours", "precision", "GFLOP an image", "GFLOP/s", "of the matrix peak"])
    record["estimates"] = _estimates(record)
    parts = ["benchmark", "extraction", "head", "finetune", "all"]
    rows = [[name, *(f"{some[part]:.0f}" for part in parts)] for name, some in record["estimates"].items()]
    if rows:
        _print(rows, ["seconds for the article's table", *parts])
    return missed


def _peaks(record: dict[str, Any]) -> dict[str, float]:
    return record["machine"]["matmul_flops_per_second"]


def _medians(record: dict[str, Any], unit: str) -> dict[str, dict[str, float]]:
    """Return each participant's median seconds, over all pairs; this package's are named by its ways."""
    seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for pair in record["pairs"]:
        for name, found in pair["participants"].items():
            participant, what = (pair["peer"], pair["case"]) if name == pair["peer"] else (OURS, name)
            seconds[participant][what] += found[f"seconds_per_{unit}"]
    return {name: {what: statistics.median(all_) for what, all_ in some.items()} for name, some in seconds.items()}


def _work(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return how many operations an image takes in each of this package's ways, and how many it gets a second."""
    work = {}
    seconds = _medians(record, "image").get(OURS, {})
    for pair in record["pairs"]:
        for way in CASES[pair["case"]].ours:
            flops, precision = (pair["participants"][way][name] for name in ("flops", "precision"))
            rate = flops / seconds[way]
            work[way] = {"flops_per_image": flops, "flops_per_second": rate, "precision": precision}
    return work


def _estimates(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the seconds that the steps of the article's runs take: its epochs, its numbers of images."""
    seconds = {name: dict(some) for name, some in _medians(record, "image").items()}
    ours = seconds.pop(OURS, {})
    for kind in ("fresh", "stored"):
        rest = {name: item for name, item in ours.items() if not name.startswith("finetune-")}
        tuned = {"finetune": ours[f"finetune-{kind}"]} if f"finetune-{kind}" in ours else {}
        seconds[f"{OURS}, {kind}"] = rest | tuned
    estimates = {}
    for name, some in seconds.items():
        if some.keys() != CASES.keys():  # not all was measured
            continue
        parts = {case: ARTICLE_EPOCHS[case] * ARTICLE_TRAIN * some[case] for case in ARTICLE_EPOCHS}
        parts["extraction"] = ARTICLE_ALL * some["extraction"]
        if name.endswith("stored"):  # for which all images go through blocks 1 to 4 once
            parts["finetune"] += ARTICLE_ALL * some["extraction"]
        estimates[name] = parts | {"all": sum(parts.values())}
    return estimates


def _print(rows: list[list[str]], header: list[str]) -> None:
    print(tabulate.tabulate(rows, header, "github", disable_numparse=True), end="\n\n")
