"""Data of your own: a table of images, made from what you have.

    python examples/your_own_data.py scans/ diagnoses.csv images.csv

Here the scans are named `<patient>_<number>.png`, and `diagnoses.csv` has a row per patient. What
rayfold asks for is a table with `path` and `label`, and `group` for what must not straddle a split:

    data: {source: table, path: images.csv}
"""

import sys
from pathlib import Path

import pandas as pd


def main(scans: str, diagnoses: str, out: str) -> None:
    """Write the table of all scans whose patient has a diagnosis."""
    known = pd.read_csv(diagnoses, dtype=str).set_index("patient")["diagnosis"]
    paths = sorted(Path(scans).absolute().rglob("*.png"))
    table = pd.DataFrame({"path": paths, "group": [path.stem.split("_")[0] for path in paths]})
    table["label"] = table["group"].map(known)
    unknown = table["label"].isna()
    table[~unknown].to_csv(out, index=False)
    print(f"wrote {(~unknown).sum()} images to {out}; {unknown.sum()} without a diagnosis")


if __name__ == "__main__":
    main(*sys.argv[1:])
