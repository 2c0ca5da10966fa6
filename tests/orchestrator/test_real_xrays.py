"""Real chest X-rays, where they are at hand: ImageNet features find pneumonia, patients never straddle a split."""

from pathlib import Path

import pytest

from orchestrator import load_run
from tests.conftest import ROOT, rayfold

DATA = ROOT.parent / "shared" / "data" / "cxr"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the chest X-rays are not at {DATA}"),
]

EXPERIMENT = f"""
name: xrays
data:
  source: table
  path: {DATA / "manifest.csv"}
  columns: {{path: file, group: patient}}
  classes: [Normal, Pneumonia]
folds: {{k: 3, validation_fraction: 0.15}}
training: {{epochs: 8, early_stopping: 3, batch_norm_momentum: 0.9, monitor: auc}}
candidates:
  - {{name: ImageNet, model: EfficientNetLite0, image_size: 96, weights: imagenet,
     frozen_epochs: 3, learning_rate: 3.0e-3, fine_tune_learning_rate: 2.0e-4}}
"""


def test_imagenet_weights_find_pneumonia(tmp_path: Path) -> None:
    file = tmp_path / "xrays.yaml"
    file.write_text(EXPERIMENT)
    done = rayfold("run", file, "--run", tmp_path / "run", timeout=1100, alone=True)
    assert done.returncode == 0, done.stdout + done.stderr
    run = load_run(tmp_path / "run")
    auc = run.models_summary.set_index("candidate")["auc_oof"]
    assert auc["imagenet"] >= 0.80, auc
    roles = run.folds[run.folds["fold"] == 0].groupby("group")["role"].nunique()
    assert (roles == 1).all()
