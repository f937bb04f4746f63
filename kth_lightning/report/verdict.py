"""What the figures of a run or of a comparison say, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from kth_lightning.report.differences import Difference
from kth_lightning.report.imbalance import Counted
from kth_lightning.report.model_runs import ModelRuns
from kth_lightning.report.registry import MODELS, name_of
from kth_lightning.report.same_images import same_test_images
from kth_lightning.report.seen_part import seen_heading, seen_lead, unseen_figures


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


def score(model: ModelRuns, entry: Mapping[str, Any], uneven: bool = False) -> str:
    """Say how many test images a model classifies correctly; of uneven classes, how many of each on the average."""
    if uneven:
        spread = f" ± {100 * entry['recall']['sd']:.1f}" if model.repeated else ""
        return f"an average of {100 * entry['recall']['value']:.1f}{spread} % of each class's test images"
    if not model.repeated:
        return f"{model.right.sum()} of {len(model.right)} test image{'' if len(model.right) == 1 else 's'}"
    return f"{100 * entry['acc']['value']:.1f} ± {100 * entry['acc']['sd']:.1f} % of the test images"


def heading(
    models: Sequence[ModelRuns], entries: Sequence[Mapping[str, Any]], titles: Sequence[str], uneven: bool
) -> str:
    """Say which model does best, and how well: by accuracy, or where classes are uneven by macro recall."""
    if not same_test_images(entries):
        return "These figures are for different test images and cannot be compared"
    best = _best(entries, uneven)
    names = capital(_listed([titles[position] for position in best]))
    result = score(models[best[0]], entries[best[0]], uneven)
    if len(models) == 1:
        return seen_heading(names, models[0].metrics[0], uneven) or f"{names} classifies {result} correctly"
    if len(best) == 1:
        return f"{names} does best and classifies {result} correctly"
    return f"{names} do {'equally well' if len(best) == len(models) else 'best'}: each classifies {result} correctly"


def lead(
    models: Sequence[ModelRuns],
    entries: Sequence[Mapping[str, Any]],
    titles: Sequence[str],
    differences: Sequence[Difference],
    counted: Counted,
) -> str:
    """Say how certain the result is, and what it stands beside.

    Args:
        models: One or several.
        entries: Their figures, as `table.figures` makes them.
        titles: As `titles_of` gives them.
        differences: As `find_differences` gives them.
        counted: The images of each class; where they are uneven, macro recall comes first.
    """
    if not same_test_images(entries):
        return ""
    uneven = counted.is_uneven
    best, *others = _best(entries, uneven)
    name = titles[best] if others else "it"
    warned = seen_lead(models[0].metrics[0]) if len(models) == 1 else []
    unseen = unseen_figures(entries[best], models[0].metrics[0]) if warned else None
    entry, images = (unseen, "unseen images") if unseen else (entries[best], "test images")
    sentences = list(warned)
    if models[best].repeated:
        sentences.append(
            f"That is the figure of all predictions of {len(models[best].metrics)} runs together, and the standard "
            "deviation over the runs."
        )
    if uneven:
        sentences.append(f"This macro recall counts every class alike, since the classes are uneven: {counted}.")
    if unseen or not warned:
        sentences += _interval(entry, name if others else "", images, uneven)
    if uneven:
        acc = entry["acc"]
        interval = "" if acc["low"] is None else f" (95 % interval {100 * acc['low']:.1f} to {100 * acc['high']:.1f} %)"
        sentences.append(f"In all it classifies {100 * acc['value']:.1f} % of the {images} correctly{interval}.")
    mine = [item for item in differences if best in item.indices]
    # One that is right more often in all is not always so in its figure, which names the best.
    ahead = [item for item in mine if item.indices[item.better] == best]
    for verdict, claim in (
        ("better", "has a significantly higher accuracy than" if uneven else "is significantly better than"),
        ("more right", "classifies significantly more of these images correctly than"),
    ):
        if beaten := [titles[sum(item.indices) - best] for item in ahead if item.verdict == verdict]:
            sentences.append(f"{capital(name)} {claim} {_listed(beaten)}.")
    if equal := [titles[sum(item.indices) - best] for item in mine if item.verdict == "open"]:
        sentences.append(f"These images do not show a difference between {name} and {_listed(equal)}.")
    if articles := [entry["article"] for entry in entries if "article" in entry]:
        top = max(article["acc"] for article in articles)
        which = "The article's model of this kind" if len(articles) == 1 else "The article's best"
        sentences.append(f"{which} classified {100 * top:.0f} % of {articles[0]['n']} images correctly.")
    return " ".join(sentences)


def _interval(entry: Mapping[str, Any], name: str, images: str, uneven: bool) -> list[str]:
    """Say what to expect of further images, as far as the tested ones tell."""
    leading, groups = entry["recall" if uneven else "acc"], entry.get("groups")
    if groups and groups["n"] == 1:
        return [f"The {images} are of one group, which does not tell what to expect of further groups."]
    if leading["low"] is None:
        return []
    figure = "macro recall" if uneven else "accuracy"
    subject = f"the {figure} of {name}" if name else f"its {figure}"
    like = (
        f"images of further groups like these {groups['n']}"
        if groups
        else f"images like {'the unseen ones' if images == 'unseen images' else 'these'}"
    )
    return [f"The 95 % interval of {subject} on {like} is {100 * leading['low']:.1f} to {100 * leading['high']:.1f} %."]


def _best(entries: Sequence[Mapping[str, Any]], uneven: bool) -> list[int]:
    values = [entry["recall" if uneven else "acc"]["value"] for entry in entries]
    return [position for position, value in enumerate(values) if value == max(values)]


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def capital(text: str) -> str:
    """Begin a sentence."""
    return text[:1].upper() + text[1:]


def sentence(difference: Difference, titles: Sequence[str]) -> str:
    """Say what the tests of two models show.

    Args:
        difference: As `find_differences` gives it.
        titles: Of all models.
    """
    names = [titles[position] for position in difference.indices]
    better, worse = names[difference.better], names[1 - difference.better]
    if difference.verdict == "better":
        return f"{capital(better)} is better than {worse}: such a difference is unlikely by chance."
    if difference.verdict == "more right":
        return f"{capital(better)} classifies more of these images correctly than {worse}, which is unlikely by chance."
    if difference.images.first_only + difference.images.second_only == 0:
        return f"{capital(names[0])} and {names[1]} classify the same images correctly."
    return f"These images do not show a difference between {names[0]} and {names[1]}: it may be chance."


def limits(differences: Sequence[Difference]) -> str:
    """Say what tests of these runs cannot show; nothing where there are folds and seeds."""
    if not differences:
        return ""
    seeds, folds = (min(getattr(item, name) for item in differences) for name in ("seeds", "folds"))
    if folds > 1 and seeds > 1:
        return ""
    if folds > 1:
        return (
            "One seed: the effect of another seed is part of the spread over the folds, and is not measured "
            "separately (compare --seeds 3 does that)."
        )
    what = "other training images" if seeds > 1 else "other training images or another seed"
    how = "One split" if seeds > 1 else "One split and one seed"
    return (
        f"{how}: this shows how these trained models differ on images like these. It cannot show that one recipe is "
        f"better than another, since {what} may reverse the difference (compare --folds 5 --seeds 3 shows)."
    )


def p_text(value: float) -> str:
    """Write a p value."""
    return "< 0.001" if value < 0.001 else f"{value:.2g}"
