"""Streams that are compressed: told by their first bytes, undone as they are read.

gzip, bzip2 and xz are undone by the standard library, zstd by that of Python 3.14 or the package backports.zstd, lz4 by
the package lz4 (``pip install 'migpool[compression]'`` has both). What comes before a cut or a damage is had anyway.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from migpool.errors import UsageError
from migpool.streams.envelope.source import DamagedData, Source

_INPUT: Final = 2048
"""How many bytes are undone at once: what comes of them is lost if one of them is damaged."""
_OUTPUT: Final = 1 << 20
_MEMORY: Final = 128 << 20
"""Bytes that may be taken to undo xz data, which choose it: xz -9 needs 65 MiB. zstd has as many by itself."""


class Decompressor(Protocol):
    """What :class:`bz2.BZ2Decompressor` and its like have."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _Gzip:
    """zlib's own object in the form of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


@dataclass(frozen=True, slots=True)
class Compression:
    """One way of compression.

    Arguments:
        name: how it is called.
        magic: its first bytes.
        command: what undoes it on the command line.
        make: makes what undoes it; ``None``: nothing that migpool can use does.
    """

    name: str
    magic: bytes
    command: str
    make: Callable[[], Decompressor] | None


def _from(*modules: str, name: str, **options: int) -> Callable[[], Decompressor]:
    """Makes an object of the first of some modules that can be had; none is imported before."""

    def make() -> Decompressor:
        for module in modules:
            try:
                found: Any = getattr(importlib.import_module(module), name)
            except ImportError:
                continue
            made: Decompressor = found(**options)
            return made
        raise ImportError(name)

    return make


COMPRESSIONS: Final[Mapping[str, Compression]] = {
    each.name: each
    for each in (
        Compression("gzip", b"\x1f\x8b", "gzip -dc", _Gzip),
        Compression("bzip2", b"BZh", "bzip2 -dc", _from("bz2", name="BZ2Decompressor")),
        Compression("xz", b"\xfd7zXZ\0", "xz -dc", _from("lzma", name="LZMADecompressor", memlimit=_MEMORY)),
        Compression(
            "zstd", b"\x28\xb5\x2f\xfd", "zstd -dc",
            _from("compression.zstd", "backports.zstd", name="ZstdDecompressor"),
        ),
        Compression("lz4", b"\x04\x22\x4d\x18", "lz4 -dc", _from("lz4.frame", name="LZ4FrameDecompressor")),
        Compression("lzop", b"\x89LZO\0\r\n\x1a\n", "lzop -dc", None),
    )
}  # fmt: skip


def compression_of(first: bytes) -> Compression | None:
    """The compression whose data begin so; ``None`` if none's do."""
    return next((each for each in COMPRESSIONS.values() if first.startswith(each.magic)), None)


class Unpacked(Source):
    """What comes of compressed data, of one part or of several in a row.

    Arguments:
        inner: the compressed data.
        how: how they were compressed.
        where: how to call them.
        begin: where in their file they begin.

    Raises:
        UsageError: nothing here can undo it.
    """

    def __init__(self, inner: Source, how: Compression, where: str, begin: int) -> None:
        super().__init__()
        self._inner = inner
        self._how = how
        self._damage = ""
        self._left = b""
        try:
            if how.make is None:
                raise ImportError(how.name)
            self._make = how.make
            self._decompressor = how.make()
        except ImportError:
            source = f"tail -c +{begin + 1} {where} |" if begin else f"cat {where} |"
            extra = " (or: pip install 'migpool[compression]')" if how.make is not None else ""
            raise UsageError(
                f"{where} is compressed with {how.name}, which is not undone here: "
                f"{source} {how.command} | migpool inspect -{extra}"
            ) from None

    def more(self, size: int) -> bytes:
        parts: list[bytes] = []
        wanted = min(size, _OUTPUT)
        while wanted and not self._damage:
            try:
                part = self._some(wanted)
            except (zlib.error, OSError, RuntimeError, ValueError, EOFError) as error:
                self._damage = f"{error}"
                break
            except Exception as error:
                if type(error).__module__.partition(".")[0] not in ("_lzma", "compression", "backports"):
                    raise
                self._damage = f"{error}"  # LZMAError or ZstdError, of whichever module it is
                break
            if part is None:
                break
            parts.append(part)
            wanted -= len(part)
        found = b"".join(parts)
        if not found and self._damage:
            where = f"cut or damaged near their byte {self._inner.position}"
            raise DamagedData(f"the {self._how.name} data are {where}: {self._damage}")
        return found

    def _some(self, size: int) -> bytes | None:
        """Some bytes, perhaps none; ``None`` at the end."""
        if self._decompressor.eof:
            rest = (self._decompressor.unused_data or b"") + self._left
            self._left = b""
            rest += self._inner.exactly(max(0, len(self._how.magic) - len(rest)))
            if not rest.startswith(self._how.magic):
                if rest.strip(b"\0"):
                    self._damage = f"{self._how.name} data end, and other data stand behind them"
                return None
            self._decompressor, self._left = self._make(), rest
        data = b""
        if self._decompressor.needs_input:
            data, self._left = self._left or self._inner.read(_INPUT), b""
            if not data:
                raise EOFError("they end in the middle")
        return self._decompressor.decompress(data, size)
