"""Archives as the kernel unpacks them at its start: cpio's new form, one after the other."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Self

__all__ = ["Archive"]


class Archive:
    """Writes one archive; leave the context to end it.

    Arguments:
        file: where to; archives may stand before it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._number = 0
        self._directories: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._entry("TRAILER!!!", 0, b"")

    def add(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Add a file, and the directories above it."""
        self._above(name)
        self._entry(name, stat.S_IFREG | mode, content)

    def add_file(self, name: str, file: Path) -> None:
        """Add a file of the host, what a link leads to for a link."""
        self.add(name, file.read_bytes(), file.stat().st_mode & 0o777)

    def add_tree(self, name: PurePosixPath, directory: Path) -> None:
        """Add all files below a directory of the host."""
        for where, directories, files in os.walk(directory):
            directories.sort()
            for file in sorted(files):
                path = Path(where, file)
                self.add_file(str(name / path.relative_to(directory)), path)

    def add_console(self) -> None:
        """Add the node that the kernel opens for the first process before anything is mounted."""
        self._above("dev/console")
        self._entry("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1))

    def _above(self, name: str) -> None:
        parts = name.split("/")[:-1]
        for length in range(1, len(parts) + 1):
            directory = "/".join(parts[:length])
            if directory not in self._directories:
                self._directories.add(directory)
                self._entry(directory, stat.S_IFDIR | 0o755, b"")

    def _entry(self, name: str, mode: int, content: bytes, node: tuple[int, int] = (0, 0)) -> None:
        self._number += 1
        path = name.encode() + b"\0"
        fields = (self._number, mode, 0, 0, 1, 0, len(content), 0, 0, *node, len(path), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + path
        self._file.write(header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4))
