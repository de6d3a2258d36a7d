"""Files that somebody else may have made: only regular ones, and no more of them than a limit."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

from migpool.errors import UsageError
from migpool.units import format_size

_KINDS: Final = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a link",
}


def open_regular(path: Path, *, links: bool = True) -> BinaryIO:
    """Open a file to read it, unbuffered; what is none is refused without waiting for it.

    Arguments:
        links: whether the name may be a symbolic link.

    Raises:
        UsageError: it is no regular file.
        OSError: it cannot be opened.
    """
    if not links and path.is_symlink():
        raise UsageError(f"{path} is a link, not a file: put the file itself there")
    # A named pipe would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW))
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind != stat.S_IFREG:
            raise UsageError(f"{path} is {_KINDS.get(kind, 'something else')}, not a file")
        return open(descriptor, "rb", buffering=0)  # noqa: PTH123 -- it is open already
    except BaseException:
        os.close(descriptor)
        raise


def read_bounded(path: Path, limit: int, *, links: bool = True) -> bytes:
    """All of a file.

    Arguments:
        limit: how many bytes it may have; looked at before anything is read.
        links: whether the name may be a symbolic link.

    Raises:
        UsageError: it is no regular file, or longer.
        OSError: it cannot be read.
    """
    with open_regular(path, links=links) as file:
        size = os.fstat(file.fileno()).st_size
        parts: list[bytes] = []
        while size <= limit and (piece := file.read(limit + 1 - sum(map(len, parts)))):
            parts.append(piece)
            size = max(size, sum(map(len, parts)))
    if size > limit:
        raise UsageError(f"{path} has {format_size(size)}: at most {format_size(limit)} of such a file are read")
    return b"".join(parts)
