"""A run for a paper: its tables, the metrics of every fold, and the ensemble on new images.

python examples/analyse_a_run.py runs/demo [IMAGES]
"""

import sys
from pathlib import Path

from rayfold import load_run, predict


def main(folder: str, *images: str) -> None:
    """Print what a paper asks for; with images, the mean of the fold models for each."""
    run = load_run(folder)
    summary = run.models_summary.set_index("candidate")
    for candidate, row in summary.iterrows():
        print(f"{candidate}: AUC {row['auc_mean']:.3f} ± {row['auc_std']:.3f} over folds")
        print(f"  pooled {row['auc_oof']:.3f}, test ensemble {row['auc_test_ensemble']:.3f}")
    per_fold = run.folds_summary[["candidate", "fold", "seed", "n_fold", "auc", "f1"]]
    print(per_fold.to_string(index=False))
    print(summary[["auc_mean", "auc_std"]].to_latex(float_format="%.3f"))
    if images:
        scored = predict(run, [Path(image) for image in images], candidate=None)
        print(scored.drop(columns="reason").to_string(index=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
