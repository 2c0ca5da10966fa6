"""How a run's figures look, and how people call its metrics."""

import textwrap
from unicodedata import east_asian_width

from xai.drawing.fonts import legible
from xai.drawing.style import BLUE, COMMON

#: How people call the metrics; higher is better except for the last two.
METRIC_LABELS = {
    "auc": "AUC",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "mcc": "MCC",
    "average_precision": "Average precision",
    "precision": "Precision",
    "recall": "Recall",
    "specificity": "Specificity",
    "brier": "Brier score",
    "log_loss": "Log loss",
}
COMPARED = ("auc", "accuracy", "balanced_accuracy", "f1", "mcc", "average_precision")

# Okabe & Ito's palette, which the colour-blind can tell apart, without its yellow, which vanishes
# on white.
COLOURS = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
ORANGE = COLOURS[1]
STYLE = COMMON | {
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.dpi": 120,
    "font.size": 10,
    "axes.titlesize": 11,
    "figure.titlesize": 12,
    "legend.fontsize": 9,
}


def wrapped(text: str, width: int, lines: int = 3) -> str:
    """`text` on at most `lines` lines of `width` characters, with every odd character made
    visible.
    """
    shown = legible("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
    # Twice as wide as others.
    wide = sum(east_asian_width(character) in "WF" for character in shown)
    width = max(width * len(shown) // (len(shown) + wide), 1) if wide else width
    return "\n".join(textwrap.wrap(shown, width, max_lines=lines, placeholder=" …")) or "(empty)"
