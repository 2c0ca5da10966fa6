"""What ssh would do between the hosts of the lab: carry connections from one host's loopback to
another's.
"""

import ctypes
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def tunnel(near: int, far: int, port: int) -> Iterator[None]:
    """`ssh -N -L port:127.0.0.1:port far`, typed on `near`, as long as the block lasts; hosts by
    PID 1.
    """
    with socket_in(near) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        serve = threading.Thread(target=_serve, args=(listener, far, port), daemon=True)
        serve.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        serve.join()


def socket_in(pid: int) -> socket.socket:
    """A TCP socket in the network of the host whose PID 1 this is; it stays there whoever uses
    it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    other = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if libc.setns(other, 0):
            raise OSError(ctypes.get_errno(), f"setns to the network of {pid}")
        try:
            return socket.socket()
        finally:
            libc.setns(own, 0)  # of this thread only
    finally:
        os.close(own)
        os.close(other)


def _serve(listener: socket.socket, far: int, port: int) -> None:
    while True:
        try:
            inner, _ = listener.accept()
        except OSError:  # shut down
            return
        outer = socket_in(far)
        try:
            outer.connect(("127.0.0.1", port))
        except OSError:
            inner.close()
            outer.close()
            continue
        for source, sink in ((inner, outer), (outer, inner)):
            threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
