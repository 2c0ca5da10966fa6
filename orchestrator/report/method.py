"""How a run was done, in sentences."""

from collections.abc import Iterator

from orchestrator.report.facts import Facts


def describe_method(facts: Facts) -> Iterator[str]:
    """What a reader must know of folds, seeds and metrics to read the numbers."""
    seeds = facts.seeds
    often = "once" if facts.repeats == 1 else f"{facts.repeats} times anew"
    yield (
        f"The test set was held out first. The rest was divided into {facts.k} "
        f"folds, stratified by class, with no group in two parts, {often} and for all candidates."
    )
    yield (
        "Each fold's training part gave up a validation part. Early stopping and the choice of the "
        "best epoch looked at it alone, so neither the fold nor the test set had a say in the "
        "training that they score."
    )
    yield (
        "Every candidate is trained once per fold and seed "
        f"({'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}). Mean and sample "
        "standard deviation are over these trainings."
    )
    pooled = "all fold predictions scored as one set"
    models = "the folds' models"
    if several := [
        (number, unit)
        for number, unit in ((facts.repeats, "repeat"), (len(seeds), "seed"))
        if number > 1
    ]:
        one = " and ".join(f"one {unit}" for _, unit in several)
        over = " and ".join(f"{number} {unit}s" for number, unit in several)
        pooled = f"the fold predictions of {one} scored as one set, averaged over the {over}"
    if len(seeds) > 1:
        models = "the models of all folds and seeds"
    yield (
        f"Pooled out-of-fold: {pooled}. Test, mean: the average score of {models} on the test set. "
        "Test, ensemble: the score of their averaged probabilities."
    )
    yield (
        "Precision, recall, F1, specificity, AUC and average precision are macro averages: every "
        "class counts the same. For the Brier score and the log loss lower is better, for all "
        "others higher."
    )
    yield (
        "A candidate with a cell that is not done has no averages: what is missing might have been "
        "its worst fold."
    )
