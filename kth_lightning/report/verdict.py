"""What the figures of a run or of a comparison say, in words."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from kth_lightning.evaluation.statistics import holm, mcnemar
from kth_lightning.report.model_runs import ModelRuns
from kth_lightning.report.registry import MODELS, name_of
from kth_lightning.report.same_images import same_test_images


def titles_of(models: Sequence[ModelRuns]) -> list[str]:
    """Call each model by what it is, or by its name in the comparison where two are of one kind."""
    titles = []
    for model in models:
        backbone = str(model.configs[0].get("model.init_args.backbone")).replace("vgg", "VGG")
        kind = str(model.metrics[0].get("model"))
        name = name_of(kind)
        titles.append(MODELS[name].title.format(backbone=backbone) if name else model.part.model)
    return [
        title if titles.count(title) == 1 else model.part.model for title, model in zip(titles, models, strict=True)
    ]


def score(model: ModelRuns, entry: Mapping[str, Any]) -> str:
    """Say how many test images a model names rightly."""
    if not model.repeated:
        return f"{model.right.sum()} of {len(model.right)} test images"
    return f"{100 * entry['acc']['value']:.1f} ± {100 * entry['acc']['sd']:.1f} % of the test images"


def heading(models: Sequence[ModelRuns], entries: Sequence[Mapping[str, Any]], titles: Sequence[str]) -> str:
    """Say which model does best, and how well."""
    if not same_test_images(entries):
        return "These figures are not of the same test images, and cannot be compared"
    best = _best(entries)
    names, result = capital(_listed([titles[position] for position in best])), score(models[best[0]], entries[best[0]])
    if len(models) == 1:
        return f"{names} classifies {result} correctly"
    if len(best) == 1:
        return f"{names} does best and classifies {result} correctly"
    return f"{names} do {'equally well' if len(best) == len(models) else 'best'}: each classifies {result} correctly"


def lead(
    models: Sequence[ModelRuns],
    entries: Sequence[Mapping[str, Any]],
    titles: Sequence[str],
    pairs: Sequence[Mapping[str, Any]],
) -> str:
    """Say how certain the result is, and what it stands beside.

    Args:
        models: One or several.
        entries: Their figures, as `table.figures` makes them.
        titles: As `titles_of` gives them.
        pairs: As `paired` gives them.
    """
    if not same_test_images(entries):
        return ""
    best, *others = _best(entries)
    name = titles[best] if others else "it"
    sentences = []
    acc = entries[best]["acc"]
    if models[best].repeated:
        sentences.append(f"That is the mean of {len(models[best].metrics)} runs and their standard deviation.")
    if acc["low"] is not None:
        subject = f"the accuracy of {name}" if others else "its accuracy"
        bounds = f"{100 * acc['low']:.1f} to {100 * acc['high']:.1f} %"
        sentences.append(f"The 95 % interval of {subject} on images like these is {bounds}.")
    if mine := [pair for pair in pairs if best in pair["indices"]]:
        beaten = [titles[sum(pair["indices"]) - best] for pair in mine if pair["verdict"] == "better"]
        equal = [titles[sum(pair["indices"]) - best] for pair in mine if pair["verdict"] == "open"]
        if beaten:
            sentences.append(f"{capital(name)} is significantly better than {_listed(beaten)}.")
        if equal:
            sentences.append(f"These images do not show a difference between {name} and {_listed(equal)}.")
    if articles := [entry["article"] for entry in entries if "article" in entry]:
        top = max(article["acc"] for article in articles)
        which = "The article's model of this kind" if len(articles) == 1 else "The article's best"
        sentences.append(f"{which} classified {100 * top:.0f} % of {articles[0]['n']} images correctly.")
    return " ".join(sentences)


def _best(entries: Sequence[Mapping[str, Any]]) -> list[int]:
    top = max(entry["acc"]["value"] for entry in entries)
    return [position for position, entry in enumerate(entries) if entry["acc"]["value"] == top]


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def capital(text: str) -> str:
    """Begin a sentence."""
    return text[:1].upper() + text[1:]


def paired(models: Sequence[ModelRuns], titles: Sequence[str]) -> list[dict[str, Any]]:
    """Compare each two models that were tested once on the same images."""
    pairs: list[dict[str, Any]] = []
    for (first, one), (second, other) in combinations(enumerate(models), 2):
        if one.repeated or other.repeated or set(one.names) != set(other.names):
            continue
        right = [dict(zip(model.names, model.right.tolist(), strict=True)) for model in (one, other)]
        test = mcnemar(*(np.array([item[name] for name in one.names]) for item in right))
        pairs.append({"indices": (first, second), "names": (one.part.model, other.part.model), "test": test})
    for pair, adjusted in zip(pairs, holm([pair["test"].p for pair in pairs]), strict=True):
        test, (one_title, other_title) = pair["test"], (titles[position] for position in pair["indices"])
        pair["p"], pair["adjusted"] = _p(test.p), _p(adjusted)
        better, worse = (one_title, other_title) if test.first_only > test.second_only else (other_title, one_title)
        pair["verdict"] = "better" if adjusted < 0.05 else "open"
        if adjusted < 0.05:
            pair["sentence"] = f"{capital(better)} is better than {worse}: such a difference is unlikely by chance."
        elif test.first_only + test.second_only == 0:
            pair["sentence"] = f"{capital(one_title)} and {other_title} classify the same images correctly."
        else:
            pair["sentence"] = (
                f"These images do not show a difference between {one_title} and {other_title}: it may be chance."
            )
    return pairs


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.2g}"
