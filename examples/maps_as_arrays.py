"""Heatmaps as arrays: those of one model, and what all fold models say together.

rayfold explain runs/demo
python examples/maps_as_arrays.py runs/demo tiny-cnn maps.npz
"""

import sys

from rayfold import load_run


def main(folder: str, candidate: str, out: str) -> None:
    """Print what the Grad-CAM maps of a candidate's test images look like, and save them."""
    heatmaps = load_run(folder).heatmaps
    one = {"candidate": candidate, "method": "gradcam", "split": "test"}
    table, maps = heatmaps.arrays(**one, fold=0)  # a row per image and class; float32 (n, h, w)
    print(f"fold 0: {maps.shape[0]} maps of {maps.shape[1]} × {maps.shape[2]} cells")
    hottest = maps.reshape(len(maps), -1).argmax(axis=1)
    for row, cell in zip(table.to_dict("records")[:5], hottest[:5], strict=True):
        at = divmod(int(cell), maps.shape[2])
        print(f"  {row['image']} for {row['class']}: hottest at row {at[0]}, column {at[1]}")
    together = heatmaps.ensemble(candidate=candidate, method="gradcam")
    agreement = together.table["spearman"].mean()
    print(f"all folds: {len(together.mean)} maps; agreement of the folds {agreement:.2f}")
    heatmaps.save_npz(out, **one)


if __name__ == "__main__":
    main(*sys.argv[1:])
