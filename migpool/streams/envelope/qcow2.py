"""Snapshots inside of a qcow2 image (``savevm``): their list, and the machine's state of one of them.

Big-endian, as qcow2's public specification has it. A snapshot keeps the machine's state behind the end of the disk, in
clusters that its own L1 and L2 tables map. Read so, nothing is needed but the file, and nothing is changed in it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from migpool.errors import UsageError
from migpool.streams.envelope.source import SeekableSource

MAGIC: Final = b"QFI\xfb"
_HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQ")
_SNAPSHOT: Final = struct.Struct(">QIHHIIQII")
_LARGE: Final = struct.Struct(">QQ")
_FEATURES_AT: Final = 72
_EXTERNAL_DATA, _EXTENDED_L2 = 1 << 2, 1 << 4
_OFFSETS: Final = 0x00FFFFFFFFFFFE00
_COMPRESSED, _ZERO = 1 << 62, 1 << 0
_SNAPSHOT_LIMIT: Final = 65536
_TABLE_LIMIT: Final = 1 << 25


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot of an image.

    Arguments:
        number: its id.
        name: what its user called it.
        size: bytes of the machine's state; 0: it has the disk alone.
        l1_at: where its L1 table is.
        l1_size: how many entries that has.
        disk: the disk's size then, in bytes.
    """

    number: str
    name: str
    size: int
    l1_at: int
    l1_size: int
    disk: int


class Image:
    """A qcow2 image.

    Arguments:
        file: the whole file.
        where: how to call it.

    Attributes:
        snapshots: in the order in which they were taken.

    Raises:
        UsageError: its header is none, or it keeps its clusters elsewhere or encrypted.
    """

    def __init__(self, file: SeekableSource, where: str) -> None:
        self.file = file
        self._where = where
        raw = file.at(0, _HEADER.size)
        if len(raw) < _HEADER.size:
            raise UsageError(f"{where} is a qcow2 image that ends within its header")
        (_, version, _, _, self.cluster_bits, self._disk, encrypted, _, _, _, _, count, at) = _HEADER.unpack(raw)
        features = int.from_bytes(file.at(_FEATURES_AT, 8), "big") if version >= 3 else 0
        if not 9 <= self.cluster_bits <= 21 or version not in (2, 3) or count > _SNAPSHOT_LIMIT:
            raise UsageError(f"{where} is a qcow2 image of version {version} that is not understood here")
        if encrypted or features & _EXTERNAL_DATA:
            what = "encrypted" if encrypted else "with its data in another file"
            raise UsageError(
                f"{where} is a qcow2 image, {what}: load the snapshot with QEMU (-loadvm NAME) and migrate to a file"
            )
        self.entry_size = 16 if features & _EXTENDED_L2 else 8
        self.snapshots = self._read_snapshots(count, at)

    def _read_snapshots(self, count: int, at: int) -> tuple[Snapshot, ...]:
        found = []
        for _ in range(count):
            raw = self.file.at(at, _SNAPSHOT.size)
            if len(raw) < _SNAPSHOT.size:
                raise UsageError(f"{self._where} is a qcow2 image that ends within its list of snapshots")
            l1_at, l1_size, id_size, name_size, _, _, _, size, extra = _SNAPSHOT.unpack(raw)
            at += _SNAPSHOT.size
            disk = self._disk
            more = self.file.at(at, min(extra, _LARGE.size))
            if len(more) == _LARGE.size:
                size, disk = _LARGE.unpack(more)
            elif len(more) >= 8:
                size = int.from_bytes(more[:8], "big")
            names = self.file.at(at + extra, id_size + name_size)
            number, name = names[:id_size].decode("utf-8", "replace"), names[id_size:].decode("utf-8", "replace")
            found.append(Snapshot(number, name, size, l1_at, l1_size, disk))
            at = -(-(at + extra + id_size + name_size) // 8) * 8
        return tuple(found)

    def choose(self, wanted: str | None) -> Snapshot:
        """The snapshot of this name or id; by default the only one with a machine's state.

        Raises:
            UsageError: there is none, or there are several.
        """
        with_state = [one for one in self.snapshots if one.size]
        names = ", ".join(f"{one.name!r} ({one.size} bytes)" for one in with_state) or "none"
        if wanted is not None:
            for one in with_state:
                if wanted in (one.name, one.number):
                    return one
            raise UsageError(f"{self._where} has no snapshot {wanted!r} with a machine's state; there are: {names}")
        if not with_state:
            raise UsageError(f"{self._where} is a qcow2 image without a snapshot of a machine's state (savevm)")
        if len(with_state) > 1:
            raise UsageError(f"{self._where} has {len(with_state)} snapshots: --snapshot NAME of {names}")
        return with_state[0]


class SnapshotState(SeekableSource):
    """The machine's state of one snapshot.

    Arguments:
        image: whose.
        snapshot: which.
    """

    def __init__(self, image: Image, snapshot: Snapshot) -> None:
        super().__init__(0, snapshot.size)
        self._image = image
        self._cluster = 1 << image.cluster_bits
        self._per_table = self._cluster // image.entry_size
        covered = self._cluster * self._per_table
        self._first = -(-snapshot.disk // covered) * self._per_table
        self._l1 = image.file.at(snapshot.l1_at, min(_TABLE_LIMIT, 8 * snapshot.l1_size))
        self._l2: tuple[int, bytes] = (-1, b"")

    def at(self, place: int, size: int) -> bytes:
        number, within = divmod(place, self._cluster)
        length = max(0, min(size, self._cluster - within))
        begin = self._place_of(self._first + number)
        return bytes(length) if begin is None else self._image.file.at(begin + within, length)

    def _place_of(self, cluster: int) -> int | None:
        """Where a cluster of the disk is in the file; ``None`` if it is nowhere, and so reads as zeros."""
        table, index = divmod(cluster, self._per_table)
        if self._l2[0] != table:
            begin = int.from_bytes(self._l1[8 * table : 8 * table + 8], "big") & _OFFSETS
            self._l2 = table, self._image.file.at(begin, self._cluster) if begin else b""
        entry = int.from_bytes(self._l2[1][index * self._image.entry_size :][:8], "big")
        if entry & _COMPRESSED:
            raise UsageError(
                "the snapshot's state is in compressed clusters: load it with QEMU (-loadvm NAME) and migrate to a file"
            )
        return entry & _OFFSETS or None if not entry & _ZERO else None
