"""A driver that looks at its cluster from every node: look.py REPORT [EXIT CODE] [HOLD FILE].

Writes what each node has and what a task sees there, as JSON; with a hold file, waits until that is
there.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

report, code = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
ray.init(log_to_driver=False)


def seen() -> dict[str, object]:
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    return {
        "host": socket.gethostname(),
        "uid": os.getuid(),
        **{name: os.environ.get(name) for name in names},
    }


task = ray.remote(num_cpus=0)(seen)
rows = []
for node in ray.nodes():
    if node["Alive"]:
        gpus = 1 if node["Resources"].get("GPU") else 0
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        found = ray.get(task.options(scheduling_strategy=here, num_gpus=gpus).remote())
        rows.append({"address": node["NodeManagerAddress"], **node["Resources"], **found})
part = report.with_name(report.name + ".part")
part.write_text(json.dumps(sorted(rows, key=lambda row: row["host"])))
part.replace(report)
sys.stdout.write(f"looked at {len(rows)} nodes\n")
sys.stdout.flush()
while len(sys.argv) > 3 and not Path(sys.argv[3]).exists():
    time.sleep(0.2)
sys.exit(code)
