"""A driver with many small tasks: work.py FOLDER COUNT. Each task takes half a second and a CPU,
and says where it ran.

Ends when every task has given its result, on whatever nodes there were.
"""

import socket
import sys
import time
from pathlib import Path

import ray

folder, count = Path(sys.argv[1]).absolute(), int(sys.argv[2])
ray.init(log_to_driver=False)


def square(number: int) -> int:
    time.sleep(0.5)
    node = ray.get_runtime_context().get_node_id()[:12]  # of the cluster: a host may have several
    (folder / f"done-{number}-{socket.gethostname()}-{node}").touch()
    return number * number


task = ray.remote(num_cpus=1, max_retries=-1, scheduling_strategy="SPREAD")(square)
results = [task.remote(number) for number in range(count)]
assert ray.get(results) == [number * number for number in range(count)]
sys.stdout.write("all tasks have their results\n")
