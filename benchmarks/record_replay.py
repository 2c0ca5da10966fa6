"""Real candidates with out-of-fold scores, recorded once, so that searches can be replayed at will.

`python -m benchmarks.record_replay [DATA …]` trains the candidates of the named data sets (all
where none is named), in 5 and in 10 folds, and puts their rows into `benchmarks/replay.parquet`;
rows of other data sets stay. One row per data set, number of folds, candidate and sample:

    data, folds (5 or 10), candidate (0 is the one of default settings), name, sample, fold, group
    (whole groups lie in one fold), label (0 or 1), score (float16: log-odds of class 1, or what
    orders the samples like them)

scikit-learn's classifiers are trained on its bundled data, which noise makes hard enough for
candidates to differ; the CNNs are in `replay_images.py`.
"""

import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import logit
from sklearn import datasets
from sklearn.base import ClassifierMixin
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

CANDIDATES = 64
FOLDS = (5, 10)
TABLE = Path(__file__).with_name("replay.parquet")
SCHEMA = pa.schema(
    {
        "data": pa.string(),
        "folds": pa.int8(),
        "candidate": pa.int16(),
        "name": pa.string(),
        "sample": pa.int16(),
        "fold": pa.int8(),
        "group": pa.int16(),
        "label": pa.int8(),
        "score": pa.float16(),
    }
)

Samples = tuple[NDArray[np.float64], NDArray[np.int64]]  # features (n, d), labels (n,) of 0 and 1
#: Scores (n,) of the held-out rows, from the rows to train on and the rows that are held out.
Fit = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.floating[Any]]]


# --- data -----------------------------------------------------------------------------------------


def _noisy(features: NDArray[np.float64], noise: float, seed: int) -> NDArray[np.float64]:
    """Standardised features with normal noise of `noise` standard deviations."""
    scaled = StandardScaler().fit_transform(features)
    return scaled + np.random.default_rng(seed).normal(0, noise, features.shape)


def breast_cancer() -> Samples:
    features, labels = datasets.load_breast_cancer(return_X_y=True)
    return _noisy(features, 3.0, 1), labels


def wine() -> Samples:
    features, labels = datasets.load_wine(return_X_y=True)
    return _noisy(features, 1.2, 2), (labels == 1).astype(np.int64)


def digits_3_8() -> Samples:
    features, labels = datasets.load_digits(return_X_y=True)
    chosen = (labels == 3) | (labels == 8)
    noise = np.random.default_rng(3).normal(0, 8, features.shape)  # pixels are 0 to 16
    return (features + noise)[chosen], (labels[chosen] == 8).astype(np.int64)


def digits_parity() -> Samples:
    features, labels = datasets.load_digits(return_X_y=True)
    noise = np.random.default_rng(4).normal(0, 5, features.shape)
    return (features + noise)[:900], labels[:900] % 2


def diabetes() -> Samples:
    features, progression = datasets.load_diabetes(return_X_y=True)
    return features, (progression > np.median(progression)).astype(np.int64)


TABULAR: Mapping[str, Callable[[], Samples]] = {
    "breast cancer": breast_cancer,
    "wine": wine,
    "digits 3 against 8": digits_3_8,
    "digits even against odd": digits_parity,
    "diabetes": diabetes,
}


# --- candidates -----------------------------------------------------------------------------------


def _classifier(rng: np.random.Generator) -> tuple[str, ClassifierMixin]:
    """A family and its hyperparameters, as a search over all of them would draw."""

    def log(low: float, high: float) -> float:
        return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.3g}")

    trees = {
        "n_estimators": round(log(5, 60)),
        "max_depth": round(log(1, 20)),
        "min_samples_leaf": round(log(1, 40)),
        "max_features": log(0.05, 1),
        "random_state": 0,
    }
    layers = (round(log(2, 64)),) * int(rng.integers(1, 3))
    drawn: list[ClassifierMixin] = [
        LogisticRegression(C=log(1e-5, 1e3), max_iter=300),
        SVC(C=log(1e-2, 1e3), gamma=log(1e-5, 1)),
        KNeighborsClassifier(round(log(1, 100)), weights=str(rng.choice(["uniform", "distance"]))),
        RandomForestClassifier(**trees),
        ExtraTreesClassifier(**trees),
        GradientBoostingClassifier(
            learning_rate=log(1e-3, 1),
            **(trees | {"max_depth": round(log(1, 6))}),
        ),
        DecisionTreeClassifier(**{k: trees[k] for k in ("max_depth", "min_samples_leaf")}),
        MLPClassifier(
            layers,
            alpha=log(1e-5, 10),
            learning_rate_init=log(1e-4, 1e-1),
            max_iter=round(log(5, 80)),
            random_state=0,
        ),
        GaussianNB(var_smoothing=log(1e-9, 10)),
        QuadraticDiscriminantAnalysis(reg_param=log(1e-3, 1)),
    ]
    chances = np.array([2, 3, 1, 2, 2, 3, 1, 3, 1, 1], float)
    chosen = drawn[rng.choice(len(drawn), p=chances / chances.sum())]
    return " ".join(str(chosen).split()), chosen


def _scores(model: Any, features: NDArray[np.float64]) -> NDArray[np.float64]:
    """What orders the samples: decision values where there are, else log-odds."""
    if hasattr(model, "decision_function"):
        return np.asarray(model.decision_function(features))
    return np.asarray(logit(model.predict_proba(features)[:, 1]))


def tabular_fits(data: str) -> tuple[list[tuple[str, Fit]], NDArray[np.int64], NDArray[np.int64]]:
    """The candidates of a data set, its labels (n,), and its groups (n,): each sample its own."""
    features, labels = TABULAR[data]()
    rng = np.random.default_rng(0)
    default = LogisticRegression()
    drawn = [(str(default), default), *(_classifier(rng) for _ in range(CANDIDATES - 1))]

    def fit_of(classifier: ClassifierMixin) -> Fit:
        def fit(train: NDArray[np.int64], held_out: NDArray[np.int64]) -> NDArray[np.float64]:
            model = make_pipeline(StandardScaler(), classifier)
            return _scores(model.fit(features[train], labels[train]), features[held_out])

        return fit

    fits = [(name, fit_of(classifier)) for name, classifier in drawn]
    return fits, labels, np.arange(len(labels))


# --- recording ------------------------------------------------------------------------------------


def fold_of(labels: NDArray[np.int64], groups: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The fold of each sample: stratified by label, whole groups."""
    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=0)
    folds = np.empty(len(labels), np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(labels, labels, groups)):
        folds[held_out] = fold
    return folds


def record(
    data: str, fits: list[tuple[str, Fit]], labels: NDArray[np.int64], groups: NDArray[np.int64]
) -> pa.Table:
    """The rows of a data set."""
    parts = []
    n = len(labels)
    for k in FOLDS:
        folds = fold_of(labels, groups, k)
        for number, (name, fit) in enumerate(fits):
            scores = np.empty(n, np.float64)
            for fold in range(k):
                held_out = np.flatnonzero(folds == fold)
                scores[held_out] = fit(np.flatnonzero(folds != fold), held_out)
            scores = np.nan_to_num(scores, nan=0.0)  # of what diverged
            columns = {
                "data": [data] * n,
                "folds": np.full(n, k),
                "candidate": np.full(n, number),
                "name": [name] * n,
                "sample": np.arange(n),
                "fold": folds,
                "group": groups,
                "label": labels,
                "score": np.clip(scores, -1000, 1000).astype(np.float16),
            }
            parts.append(pa.table(columns).cast(SCHEMA))
    return pa.concat_tables(parts)


def put(data: str, rows: pa.Table) -> None:
    """Write the rows of a data set into the table, in place of what it had of that one."""
    if TABLE.exists():
        known = pq.read_table(TABLE)
        others = known.filter([name != data for name in known["data"].to_pylist()])
        rows = pa.concat_tables([others, rows])
    pq.write_table(
        rows.sort_by([(name, "ascending") for name in ("data", "folds", "candidate", "sample")]),
        TABLE,
        compression="zstd",
        compression_level=19,
        use_dictionary=["data", "folds", "candidate", "name", "fold", "label"],
        column_encoding={
            "sample": "DELTA_BINARY_PACKED",
            "group": "DELTA_BINARY_PACKED",
            "score": "BYTE_STREAM_SPLIT",
        },
    )


def main() -> None:
    from benchmarks import replay_images

    warnings.filterwarnings("ignore")  # candidates that do not converge are meant
    for data in sys.argv[1:] or [*TABULAR, *replay_images.DATA]:
        began = time.perf_counter()
        found = tabular_fits(data) if data in TABULAR else replay_images.fits(data)
        put(data, record(data, *found))
        sys.stdout.write(f"{data}: {time.perf_counter() - began:.0f} s\n")


if __name__ == "__main__":
    main()
