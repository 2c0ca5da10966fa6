"""Small file habits that every module shares: write beside the final name, then move into place."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile, ZipFile

_VARIABLE = re.compile(r"\$(?:\$|([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")

#: What is said of a folder, pipe, device or socket where a file was expected.
NOT_REGULAR = "not a regular file"


@contextmanager
def replacing(path: Path, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary name beside `path`; when the block ends well, sync it and move it into
    place at once.

    Without `sync` a power cut may leave an empty file: for what is cheap to make again, and never
    read back. The temporary name keeps the suffix of `path`, since many writers choose their format
    by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Random, not the process id: on shared storage two nodes may have the same one.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        if sync:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename is None:  # a full disk is reported without a name
            error.filename = str(path)
        raise
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def whole_files(folder: Path, pattern: str = "*") -> list[Path]:
    """The files below `folder` that match the glob pattern, sorted, without what a killed writer
    left unfinished.
    """
    return sorted(
        path for path in folder.glob(pattern) if not path.name.startswith(".") and path.is_file()
    )


def write_text(path: Path, text: str) -> None:
    r"""Write UTF-8 text so that readers see the old file or the new one, never a part.

    File names that are not UTF-8 come as lone surrogates; these are written as `\udcXX`, which is
    JSON's escape too.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_text` writes text."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def link_or_copy(source: Path, target: Path) -> None:
    """Give a regular file a second name, or copy it where it can have none, as on another disk.

    Raises OSError for anything else, a symbolic link too, and where something is there already.
    """
    if source.is_symlink():
        raise OSError(errno.EINVAL, NOT_REGULAR, str(source))
    with open_regular(source) as content:
        try:
            os.link(source, target)
        except OSError:
            with target.open("xb") as copy:
                shutil.copyfileobj(content, copy)


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading.

    Raises OSError for anything else that the path may name, and for what no file can be called;
    never waits for the other end of a pipe.
    """
    try:
        if stat.S_ISREG(path.stat().st_mode):
            file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
            # It may have been replaced in between.
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file
            file.close()
    except ValueError:  # a zero byte, or broken characters
        raise FileNotFoundError(errno.ENOENT, "no name of a file", str(path)) from None
    raise OSError(errno.EINVAL, NOT_REGULAR, str(path))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parts_digest(path: Path) -> str:
    """SHA-256 of a zip file's size, and of the names, sizes and checksums of what it holds, in hex;
    raises BadZipFile.

    A file that takes its place is told from it without reading either.
    """
    try:
        with ZipFile(path) as archive:
            parts = sorted(
                (
                    part.filename,
                    part.file_size,
                    part.CRC,
                    part.header_offset,
                    part.compress_type,
                    part.flag_bits,
                )
                for part in archive.infolist()
            )
    except OSError:
        raise
    # zipfile raises NotImplementedError, ValueError and others for what it does not know
    except Exception as error:
        raise BadZipFile(str(error)) from error
    return hashlib.sha256(repr((path.stat().st_size, parts)).encode()).hexdigest()


def expand(text: str) -> str:
    """A path as it was written with `$NAME`, `${NAME}` and `~` replaced, and `$$` by `$`.

    Raises KeyError with the name of a variable that is not set, or empty.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name and not os.environ.get(name):
            raise KeyError(name)
        return os.environ[name] if name else "$"

    # Unlike Path.expanduser, this leaves the name of an unknown user as it is.
    return os.path.expanduser(_VARIABLE.sub(value, text))  # noqa: PTH111
