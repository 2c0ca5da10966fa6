"""How the images are divided into folds."""

from typing import Literal

from pydantic import Field

from trainables.core.values import Frozen, Real, Seed, Whole

MOST_REPEATS = 100


class Folds(Frozen):
    """How the images are divided."""

    k: Whole = Field(5, ge=2, le=100, description="Number of outer folds.")
    repeats: Whole = Field(
        1,
        ge=1,
        le=MOST_REPEATS,
        description="How often the folds are drawn, of the same images and beside one test set.",
    )
    test_set: Real | Literal["given"] = Field(
        0.1,
        description=(
            "Fraction of all images that is held out first, or 'given': the images whose split is "
            "test."
        ),
    )
    validation_fraction: Real = Field(
        0.1,
        ge=0.05,
        le=0.5,
        description="Fraction of each fold's training part kept for early stopping.",
    )
    seed: Seed = Field(0, description="Seed of the draw.")

    @property
    def count(self) -> int:
        """How many there are of all repeats."""
        return self.k * self.repeats

    @property
    def words(self) -> str:
        """Such as "5 folds × 3 repeats"."""
        return f"{self.k} folds" + (f" × {self.repeats} repeats" if self.repeats > 1 else "")
