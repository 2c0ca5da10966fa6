"""A cell saves itself while its node is told to end."""

import subprocess
import sys

SCRIPT = """
import time
import ray
import ray._raylet
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2
from trainables.training.trainable import CellTrainable

class Cell:
    done, saved = False, 0
    def advance(self):
        time.sleep(2.1)
        return {"epoch": 1}
    def suspend(self):
        self.saved += 1

@ray.remote(num_cpus=1, resources={"leaving": 1})
class Worker:
    def __init__(self):
        self.trainable = object.__new__(CellTrainable)
        self.trainable.config = {"run": "", "key": ""}
        self.trainable._obstacle, self.trainable._cell = None, Cell()
        self.trainable._asked = True
    def step(self):
        self.trainable.step()
        return self.trainable._cell.saved

cluster = Cluster()
cluster.add_node(num_cpus=1)
node = cluster.add_node(num_cpus=1, resources={"leaving": 1})
ray.init(address=cluster.address, log_to_driver=False)
worker = Worker.remote()
before = ray.get(worker.step.remote())
reason = autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
client = ray._raylet.GcsClient(address=cluster.address)
client.drain_node(node.node_id, reason, "it goes", int((time.time() + 60) * 1000))
print(before, ray.get([worker.step.remote(), worker.step.remote()]))
"""


def test_a_cell_is_saved_after_every_report_from_the_time_its_node_is_drained() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.stdout.split("\n")[-2] == "0 [1, 2]", done.stdout + done.stderr
