"""Snapshots inside of a qcow2 image, of images written here cluster by cluster as the format's specification has it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.support import DATA, LONG
from tests.support.commandline import here

STREAM = (DATA / "qemu-streams" / "none.mig").read_bytes()
BITS = 9
CLUSTER = 1 << BITS
PER_TABLE = CLUSTER // 8
DISK = 3 * CLUSTER * PER_TABLE + 5
COPIED = 1 << 63


def image(
    states: dict[str, bytes], *, version: int = 3, extra: bool = True, features: int = 0, crypt: int = 0
) -> bytes:
    """An image whose snapshots have these states; a cluster of zeros alone is left out."""
    first = -(-DISK // (CLUSTER * PER_TABLE))
    clusters: list[bytes] = [bytes(CLUSTER)]  # the header's own
    entries = []

    def put(data: bytes) -> int:
        clusters.append(data.ljust(CLUSTER, b"\0"))
        return (len(clusters) - 1) * CLUSTER

    for number, (name, state) in enumerate(states.items()):
        pieces = [state[at : at + CLUSTER] for at in range(0, len(state), CLUSTER)]
        places = [put(piece) | COPIED if any(piece) else 0 for piece in pieces]
        tables = [places[at : at + PER_TABLE] for at in range(0, len(places), PER_TABLE)]
        l1 = [0] * first + [put(struct.pack(f">{len(table)}Q", *table)) | COPIED for table in tables]
        l1_at = put(struct.pack(f">{len(l1)}Q", *l1))
        more = struct.pack(">QQ", len(state), DISK) if extra else b""
        small = 0 if extra else len(state)
        head = struct.pack(">QIHHIIQII", l1_at, len(l1), 1, len(name), 0, 0, 0, small, len(more))
        entry = head + more + str(number).encode() + name.encode()
        entries.append(entry.ljust(-(-len(entry) // 8) * 8, b"\0"))
    snapshots_at = put(b"".join(entries))
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", version, 0, 0, BITS, DISK, crypt, 0, 0, 0, 0, len(entries), snapshots_at
    )
    clusters[0] = (header + features.to_bytes(8, "big")).ljust(CLUSTER, b"\0")
    return b"".join(clusters)


def told(value: object) -> str:
    """What a case is called: by what is said, not by its bytes."""
    return value[:40] if isinstance(value, str) else "bytes"


@pytest.mark.parametrize(("version", "extra"), [(2, False), (2, True), (3, True)])
def test_the_only_snapshot_with_a_state_is_read(version: int, extra: bool, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    holes = STREAM[:-1] + b"}" + bytes(40 * CLUSTER)  # zeros behind the end, as a cluster has them, are not stored
    path.write_bytes(image({"disk only": b"", "state": holes}, version=version, extra=extra))
    ended = here("inspect", str(path))
    assert (ended.code, ended.err) == (0, "")
    assert "snapshot 'state' of 2 inside of a qcow2 image" in ended.out
    assert f"{40 * CLUSTER} zeros stand behind the stream's end at byte {len(STREAM)}" in ended.out


def test_one_of_several_snapshots_is_chosen_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(image({"before": STREAM, "after": STREAM[:700]}))
    refused = here("inspect", str(path))
    assert refused.code == 2
    assert f"has 2 snapshots: --snapshot NAME of 'before' ({len(STREAM)} bytes), 'after' (700 bytes)" in refused.err
    assert here("inspect", str(path), "--snapshot", "before").code == 0
    assert "walked to byte" in here("inspect", str(path), "--snapshot", "1").out
    assert "has no snapshot 'other'" in here("inspect", str(path), "--snapshot", "other").err


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (image({"disk only": b""}), "without a snapshot of a machine's state (savevm)"),
        (image({"state": STREAM}, crypt=2), "encrypted: load the snapshot with QEMU (-loadvm NAME)"),
        (image({"state": STREAM}, features=4), "with its data in another file"),
        (image({"state": STREAM}, version=9), "of version 9 that is not understood here"),
        (image({"state": STREAM})[:30], "ends within its header"),
        (image({"state": STREAM})[:-CLUSTER], "ends within its list of snapshots"),
    ],
    ids=told,
)
def test_an_image_without_a_state_that_can_be_read_is_named(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(data)
    ended = here("inspect", str(path))
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert said in ended.err


def test_an_image_damaged_at_any_byte_is_shown_or_named(tmp_path: Path) -> None:
    whole = image({"state": STREAM[:900]})
    path = tmp_path / "disk.qcow2"
    for at in range(0, len(whole), 37 if LONG else 101):
        for value in (0xFF, 0x00):
            path.write_bytes(whole[:at] + bytes((value,)) + whole[at + 1 :])
            ended = here("inspect", str(path))
            assert ended.code in (1, 2)
            assert "should not have happened" not in ended.err
