"""Hold every TCP port below the ephemeral ones that can be had, until killed."""

import os
import resource
import socket
import sys

PORTS = range(1024, 32768)

_, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
each = max(1, min(limit - 50, len(PORTS)))  # as many as one process may have open
end, stays_open = os.pipe()
for first in range(0, len(PORTS), each):
    said, say = os.pipe()
    if os.fork() == 0:
        os.close(stays_open)
        held = []
        for port in PORTS[first : first + each]:
            taken = socket.socket()
            try:
                taken.bind(("", port))
            except OSError:
                continue
            held.append(taken)
        os.write(say, b"held")
        os.read(end, 1)  # comes back when the first process is gone
        os._exit(0)
    os.read(said, 4)
sys.stdout.write("held all\n")
sys.stdout.flush()
os.read(end, 1)
