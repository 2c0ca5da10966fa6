"""What the heatmaps of a run showed, as the report tells it."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from orchestrator.report.facts import ExplanationFacts, Facts
from orchestrator.report.tables import NONE, Table
from xai.drawing.render import method_title

_SET = ["candidate", "method", "layer"]
_HEAD = ("Candidate", "Method", "Layer and map")
_PLACES = {
    "outside_lungs": "outside the lungs",
    "border": "at the border",
    "corner_top_left": "in the top left corner",
    "corner_top_right": "in the top right corner",
    "corner_bottom_left": "in the bottom left corner",
    "corner_bottom_right": "in the bottom right corner",
}


class _Explained(NamedTuple):
    """One candidate, method and layer: what they are called, mean of each score, the highest where
    it has one for each class, how many maps have it, chance and ceiling of those that have any, and
    the sanity check's verdict.
    """

    head: tuple[str, str, str]
    means: Mapping[str, float]
    maps: Mapping[str, int]
    limits: Mapping[str, tuple[float, float]]
    sanity: str

    def mean(self, score: str) -> str:
        return f"{self.means[score]:.2f}" if score in self.means else NONE

    def against_random(self, score: str) -> str:
        return f"{self.mean(score)} ({self.mean(f'{score}_blurred_random')})"

    def times(self, score: str) -> str:
        return f"{self.mean(score)}×" if score in self.means else NONE

    def within_limits(self, score: str, unit: str = "") -> tuple[str, str, str, str]:
        """The mean, what chance gives, and the best that is possible (not of maps that older
        versions judged), and of how many maps.
        """
        shown = (self.means[score], *self.limits.get(score, ()))
        chance, ceiling = [f"{value:.2f}{unit}" for value in shown[1:]] or (NONE, NONE)
        return f"{shown[0]:.2f}{unit}", chance, ceiling, f"{self.maps[score]:,}"

    @property
    def hottest_corner(self) -> str:
        corners = [
            name for name in self.means if name.startswith("corner") and name.endswith("_ratio")
        ]
        return self.times(max(corners, key=lambda name: self.means[name], default=""))


def explanation_tables(facts: Facts) -> Iterator[Table]:
    """Where the maps lie and whether the model agrees; nothing for a run that was not explained."""
    scores = facts.explanations.summary
    if scores.empty:
        return
    explained = list(_explained(facts.explanations, facts.names))
    known = set(map(str, scores["score"]))
    masks = sorted(
        score.removesuffix("_pointing") for score in known if score.endswith("_pointing")
    )
    if masks:
        yield _on_masks(explained, masks)
    lungs = ["outside_lungs_ratio"] if "outside_lungs_ratio" in known else []
    columns = [*_HEAD, *["Outside lungs"] * len(lungs), "Border", "Hottest corner"]
    where = [
        (*each.head, *map(each.times, [*lungs, "border_ratio"]), each.hottest_corner)
        for each in explained
    ]
    yield Table(
        "Evidence where no disease is (energy in multiples of a uniform map's; of the worst "
        f"class). {scores['flagged'].sum()} of {scores['p_adjusted'].notna().sum()} regions and "
        "classes are flagged as a possible shortcut; the chance of any false flag is at most 5 %",
        tuple(columns),
        tuple(where),
        left=3,
    )
    judged = [
        (
            *each.head,
            *map(each.against_random, ("insertion", "deletion", "drop")),
            each.mean("fold_spearman"),
            each.sanity,
        )
        for each in explained
    ]
    title = "Whether the model agrees (in brackets: a random map of the same smoothness)"
    columns = [*_HEAD, "Insertion", "Deletion", "Drop", "Agreement of folds", "Sanity check"]
    yield Table(title, tuple(columns), tuple(judged), left=3)


def _on_masks(explained: list[_Explained], masks: list[str]) -> Table:
    """How well the maps of each candidate and method find each mask, beside chance and the best
    that they could do.
    """
    title = (
        "Where the evidence lies. Energy: inside the mask, in multiples of a uniform map's. "
        "Pointing: share of images whose hottest place is in the mask. By chance: what a map that "
        "knows nothing has. At best: no map with this number of cells can have more. Maps: of how "
        "many; one without any evidence has no energy, and misses where it points"
    )
    limits = ("by chance", "at best", "maps")
    columns = ("Mask", "Energy", *limits, "Pointing", *limits)
    rows = [
        (
            *each.head,
            mask,
            *each.within_limits(f"{mask}_energy_ratio", "×"),
            *each.within_limits(f"{mask}_pointing"),
        )
        for each in explained
        for mask in masks
        if f"{mask}_pointing" in each.means
    ]
    return Table(title, (*_HEAD, *columns), tuple(rows), left=4)


def _explained(tables: ExplanationFacts, names: Mapping[str, str]) -> Iterator[_Explained]:
    scores, sanity = tables.summary, tables.sanity
    for identity in scores[_SET].drop_duplicates().astype(str).itertuples(index=False):
        candidate, method, layer = identity
        of_set = scores[(scores[_SET] == list(identity)).all(axis=1)]
        checked = sanity[(sanity[_SET] == list(identity)).all(axis=1)] if len(sanity) else sanity
        verdict = NONE if checked.empty else "passed" if checked["passed"].all() else "failed"
        means = {
            str(score): float(mean) for score, mean in of_set.groupby("score")["mean"].max().items()
        }
        maps = {str(score): int(n) for score, n in of_set.groupby("score")["maps"].sum().items()}
        limited = of_set[of_set["ceiling"].notna()]
        limits = dict(
            zip(
                limited["score"],
                zip(limited["chance"], limited["ceiling"], strict=True),
                strict=True,
            )
        )
        place = f"{layer}, {of_set['height'].iloc[0]}×{of_set['width'].iloc[0]}"
        yield _Explained(
            (names.get(candidate, candidate), method_title(method), place),
            means,
            maps,
            limits,
            verdict,
        )


def explanation_warnings(facts: Facts) -> Iterator[str]:
    """Candidates whose evidence lies where no disease is, methods that do not explain them, and
    what was left out.
    """
    scores, sanity, names = facts.explanations.summary, facts.explanations.sanity, facts.names
    for table, reason in facts.explanations.damaged.items():
        yield (
            f"xai/tables/{table}.parquet is damaged, {reason}, and counts as none: "
            "`rayfold explain` makes it again."
        )
    trained = facts.done["candidate"].unique()
    if len(scores) and (
        left := [names[str(each)] for each in trained if each not in set(scores["candidate"])]
    ):
        yield (
            f"Not explained yet, and so in no table of explanations: {', '.join(left)}. Run "
            "`rayfold explain` again."
        )
    tested = int(scores["p_adjusted"].notna().sum()) if len(scores) else 0
    for row in scores[scores["flagged"]].to_dict("records") if len(scores) else ():
        score, candidate = str(row["score"]).removesuffix("_ratio"), str(row["candidate"])
        yield (
            f"{method_title(str(row['method']))} finds {row['mean']:.1f} times the evidence of a "
            f"uniform map {_PLACES.get(score, score)} for what {names.get(candidate, candidate)} "
            f"calls {row['class']} (95 % interval {row['low']:.1f} to {row['high']:.1f}; "
            f"{_p(row['p_adjusted'])} after correction for all {tested} regions and classes that "
            "were looked at): it may have learned a shortcut."
        )
    failed = sanity[~sanity["passed"].astype(bool)].drop_duplicates(_SET) if len(sanity) else sanity
    for row in failed.to_dict("records"):
        candidate = str(row["candidate"])
        yield (
            f"{method_title(str(row['method']))} changes little when what "
            f"{names.get(candidate, candidate)} has learned is thrown away: its maps do not "
            "explain this model."
        )


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
