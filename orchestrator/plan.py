"""What a run would do, before it does anything."""

from collections import Counter

from orchestrator.cells import Prepared
from orchestrator.explain import printable


def plan_lines(prepared: Prepared) -> list[str]:
    """What `rayfold plan` prints: data, folds, cells and resources."""
    experiment, table = prepared.experiment, prepared.manifest.table
    images = prepared.manifest.usable
    lines = [f"experiment  {experiment.name} ({experiment.hash})"]
    lines.append(
        f"data        {len(images)} images, {prepared.manifest.channels} channel(s), {images['group'].nunique()} groups"
    )
    for name in prepared.manifest.classes:
        lines.append(f"            {int((images['label'] == name).sum()):6} {printable(name)}")
    skipped = table[table["state"] == "skipped"]
    lines += [f"            skipped {row.image!r}: {row.reason}" for row in skipped.itertuples()]
    counts = prepared.folds.groupby(["fold", "role"]).size().unstack(fill_value=0)
    for fold, row in counts.iterrows():
        parts = ", ".join(f"{int(row.get(role, 0))} {role}" for role in ("train", "validation", "fold", "test"))
        lines.append(f"fold {fold}      {parts}")
    states = Counter(entry.state().state for entry in prepared.entries)
    lines.append(
        f"cells       {len(prepared.entries)} = {len(experiment.candidates)} candidates × {experiment.folds.k} folds × "
        f"{len(experiment.seeds)} seeds; {states['done']} already done"
    )
    for candidate in experiment.candidates:
        t = candidate.training
        lines.append(
            f"            {candidate.name}: {candidate.image_size} px, up to {t.epochs} epochs, batch {t.batch_size}, "
            f"{t.optimizer} {t.learning_rate:g}, weights {t.weights}"
        )
    r = experiment.resources
    lines.append(f"resources   GPUs per cell {r.gpus_per_cell}, CPUs per cell {r.cpus_per_cell}, {r.retries} retries")
    return lines
