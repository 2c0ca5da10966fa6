"""What one image file may take, in one place: pixels, bytes, frames, directories, seconds and
memory.

What a header says is judged before memory is taken for it. What only shows as it is decoded is
bounded where files are decoded in processes of their own (`decoders.py`); elsewhere `allow` does
nothing.
"""

import os
import resource
import signal
from contextlib import suppress

from trainables.core.errors import UnreadableImage

#: Million pixels of an image, unless `data.max_megapixels` says otherwise.
MEGAPIXELS = 180.0
#: Bytes of a file, and of what is inflated out of it, for each pixel that it may have: 16 bits of
#: four channels; and for whatever else a file holds.
BYTES_PER_PIXEL = 8
OTHER_BYTES = 64 * 2**20
#: Frames and directories that are counted; an image has one.
FRAMES = 1000
#: Seconds of computing for one image, and for each million of its pixels; the slowest codec needs a
#: tenth of that.
SECONDS, SECONDS_PER_MEGAPIXEL = 2.0, 0.25
#: Memory beside the file itself while an image is decoded, and for each of its pixels.
MEMORY, MEMORY_PER_PIXEL = 512 * 2**20, 24
#: Bytes, rows and cells of a table of images.
TABLE_BYTES, TABLE_ROWS, TABLE_CELLS = 512 * 2**20, 5_000_000, 50_000_000
#: Files and folders below a folder of images.
FOLDER_ENTRIES = 5_000_000
#: How often one folder is looked into, where links lead to it.
VISITS = 50

_watched = False  # whether this process is one that decodes
_sizes: int | None = None  # the open file that tells its size, where there is one


def check_size(width: int, height: int, max_megapixels: float) -> None:
    """Raise `UnreadableImage` for an image of more pixels than are allowed, or of none; called
    before any is decoded.

    From here on the image may take what its pixels need.
    """
    if width * height > max_megapixels * 1e6:
        raise UnreadableImage(
            f"{width * height / 1e6:.1f} million pixels, more than data.max_megapixels "
            f"{max_megapixels:g}"
        )
    if width < 1 or height < 1:
        raise UnreadableImage(f"damaged: {width}x{height} pixels")
    allow(width * height)


def check_bytes(size: int, max_megapixels: float) -> None:
    """Raise `UnreadableImage` for a file of more bytes than its pixels can need; called before it
    is read.
    """
    if size > most_bytes(max_megapixels):
        raise UnreadableImage(
            f"{size / 1e6:,.0f} MB, more than an image of data.max_megapixels {max_megapixels:g} "
            "can need"
        )
    allow(0, size)


def most_bytes(max_megapixels: float) -> int:
    """Of a file, and of what is inflated out of it."""
    return OTHER_BYTES + int(BYTES_PER_PIXEL * max_megapixels * 1e6)


# --- in a process that decodes --------------------------------------------------------------------


def watch() -> None:
    """From now on `allow` bounds this process."""
    global _watched, _sizes
    _watched = True
    with suppress(OSError):
        _sizes = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def allow(pixels: int, file_bytes: int = 0) -> None:
    """Bound what this process takes from here on, for an image of so many pixels, and a file of so
    many bytes.

    More memory makes Python raise MemoryError; more computing ends the process by SIGPROF.
    """
    if not _watched:
        return
    signal.setitimer(signal.ITIMER_PROF, SECONDS + SECONDS_PER_MEGAPIXEL * pixels / 1e6)
    # A file is held twice, as it is and as the parts that were taken out of it.
    most = _size() + MEMORY + MEMORY_PER_PIXEL * pixels + 2 * file_bytes
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def allow_all() -> None:
    """Lift the bounds: nothing is being decoded."""
    signal.setitimer(signal.ITIMER_PROF, 0)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _size() -> int:
    """Bytes of address space of this process."""
    if _sizes is None:  # no Linux: a guess
        return 2**30
    return int(os.pread(_sizes, 64, 0).split()[0]) * resource.getpagesize()
