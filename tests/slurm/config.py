"""What the lab consists of, as files and scripts: SLURM's configuration, users, networks."""

import os
import shlex
import stat
from pathlib import Path

LOGIN = "login"
NODES = ("n1", "n2", "n3")
USERS = {"alice": 2001, "bob": 2002}
#: What the nodes claim to have, more than the machine may; the memory is also their limit where
#: cgroups allow.
CPUS = {"n1": 8, "n2": 8, "n3": 10}
MEMORY_MB, GPUS = 10000, 2
#: Interfaces of every node and the networks they are in; SLURM uses the first.
NETWORKS = {"eth0": "10.99.0", "fast0": "10.98.0"}
#: What stands for a GPU: a copy of /dev/null.
DEVICE, DEVICE_MODE = os.makedev(1, 3), stat.S_IFCHR | 0o666


def slurm_conf(folder: Path) -> Path:
    return folder / "etc" / "slurm.conf"


def address(host: str, interface: str = "eth0") -> str:
    """The address of a host in one of the networks."""
    return f"{NETWORKS[interface]}.{254 if host == LOGIN else 1 + NODES.index(host)}"


def write(folder: Path) -> None:
    """The files of a lab that is about to start."""
    for name in ("etc", "names", "hosts", "home", "state", "log", "munge", "devices"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "munge").chmod(0o711)
    key = folder / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    for gpu in range(GPUS):
        # The number at the end of the name becomes the index in CUDA_VISIBLE_DEVICES.
        os.mknod(folder / "devices" / f"gpu{gpu}", DEVICE_MODE, DEVICE)
    for user, uid in USERS.items():
        home = folder / "home" / user
        home.mkdir(mode=0o700)
        os.chown(home, uid, uid)
    _write_names(folder)
    slurm_conf(folder).write_text(_slurm(folder), encoding="utf-8")
    gres = (
        f"NodeName={NODES[0]},{','.join(NODES[1:])} Name=gpu Type=fake "
        f"File={folder}/devices/gpu[0-{GPUS - 1}]\n"
    )
    (folder / "etc" / "gres.conf").write_text(gres, encoding="utf-8")


def _write_names(folder: Path) -> None:
    names = folder / "names"
    hosts = ["127.0.0.1 localhost", *(f"{address(host)} {host}" for host in (LOGIN, *NODES))]
    users = [f"{user}:x:{uid}:{uid}::{folder}/home/{user}:/bin/bash" for user, uid in USERS.items()]
    groups = [f"{user}:x:{uid}:" for user, uid in USERS.items()]
    (names / "hosts").write_text("\n".join(hosts) + "\n", encoding="utf-8")
    for file, lines in (("passwd", users), ("group", groups)):
        system = Path("/etc", file).read_text(encoding="utf-8").rstrip("\n")
        (names / file).write_text("\n".join([system, *lines]) + "\n", encoding="utf-8")


def _slurm(folder: Path) -> str:
    nodes = [
        f"NodeName={node} NodeAddr={address(node)} CPUs={CPUS[node]} RealMemory={MEMORY_MB} "
        f"Gres=gpu:fake:{GPUS}"
        for node in NODES
    ]
    return "\n".join(
        [_SLURM.format(folder=folder, login=LOGIN, address=address(LOGIN)), *nodes, ""]
    )


# linuxproc: it follows parents only, so that what a launcher leaves behind stays visible instead of
# being swept away. ReturnToService=1: a node that crashed comes back by itself, one that was set
# DOWN stays so. cred_expire: what a requeued job waits before it starts again, at least.
_SLURM = """
ClusterName=rayfold
SlurmctldHost={login}({address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/hosts/%n/spool
SlurmctldPidFile={folder}/hosts/slurmctld.pid
SlurmdPidFile={folder}/hosts/%n/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SlurmctldTimeout=10
SlurmdTimeout=10
MessageTimeout=10
BatchStartTimeout=20
KillWait=10
MinJobAge=3600
ReturnToService=1
JobRequeue=1
GresTypes=gpu
PartitionName=main Nodes=ALL Default=YES DefaultTime=15 MaxTime=INFINITE State=UP
"""


# --- what the first process of a host does --------------------------------------------------------


def login_script(folder: Path) -> str:
    """Bridges that join the nodes, munge for all of them, and the controller; the host lives as
    long as that.
    """
    bridges = []
    for interface in NETWORKS:
        bridge = f"{interface}-bridge"
        bridges += [f"ip link add {bridge} type bridge", f"ip link set {bridge} up"]
        bridges += [f"ip address add {address(LOGIN, interface)}/24 dev {bridge}"]
    munge = folder / "munge"
    munged = [
        "munged",
        "--force",
        f"--key-file={munge}/key",
        f"--socket={munge}/socket",
        f"--pid-file={munge}/pid",
    ]
    munged += [f"--log-file={folder}/log/munged.log", f"--seed-file={munge}/seed"]
    controller = ["slurmctld", "-D", "-f", str(slurm_conf(folder))]
    return "\n".join(
        ["ip link set lo up", *bridges, shlex.join(munged), _first_process(folder, controller)]
    )


def node_script(folder: Path, node: str) -> str:
    """Take the network's ends as they arrive, then run SLURM's daemon; the node lives as long as
    that.
    """
    networks = [
        f"until ip link show {interface}; do sleep 0.05; done >/dev/null 2>&1;"
        f" ip address add {address(node, interface)}/24 dev {interface}; ip link set {interface} up"
        for interface in NETWORKS
    ]
    daemon = ["slurmd", "-D", "-f", str(slurm_conf(folder)), "-N", node]
    return "\n".join(["ip link set lo up", *networks, _first_process(folder, daemon)])


def _first_process(folder: Path, command: list[str]) -> str:
    # In the background, so that bash stays PID 1 and reaps what loses its parent.
    return f"export SLURM_CONF={slurm_conf(folder)}\n{shlex.join(command)} &\nwait $!"
