"""What streams are wrapped in: each wrapping is taken off, on every way in, and what cannot be is named."""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from migpool import streams
from migpool.errors import UsageError
from migpool.streams.envelope import source
from tests.support import DATA
from tests.support.commandline import here
from tests.support.inspect_command import fed
from tests.support.save_image import XML, image

STREAM = (DATA / "qemu-streams" / "none.mig").read_bytes()
Pack = Callable[[bytes], bytes]


def packed_by(module: str) -> Pack:
    def pack(data: bytes) -> bytes:
        packed: bytes = pytest.importorskip(module).compress(data)
        return packed

    return pack


def zstd(data: bytes) -> bytes:
    try:
        module = importlib.import_module("compression.zstd")
    except ImportError:
        module = pytest.importorskip("backports.zstd")
    packed: bytes = module.compress(data)
    return packed


def told(value: object) -> str:
    """What a case is called: by what is said, not by its bytes."""
    return value[:40] if isinstance(value, str) else "bytes"


PACKS: dict[str, Pack] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
    "lz4": packed_by("lz4.frame"),
}


def members(data: bytes) -> bytes:
    """Two members of gzip in a row, and the padding of a tape."""
    return gzip.compress(data[:100]) + gzip.compress(data[100:]) + bytes(512)


WRAPPED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    **{name: (pack, f"compressed with {name}") for name, pack in PACKS.items()},
    "gzip of several members": (members, "compressed with gzip"),
    "gzip twice": (lambda data: gzip.compress(gzip.compress(data)), "compressed with gzip"),
    "libvirt raw": (lambda data: image(0, data), "libvirt save image, version 2, of a running machine, raw"),
    "libvirt gzip": (lambda data: image(1, gzip.compress(data)), "of a running machine, gzip"),
    "libvirt bzip2": (lambda data: image(2, bz2.compress(data)), "of a running machine, bzip2"),
    "libvirt xz": (lambda data: image(3, lzma.compress(data)), "of a running machine, xz"),
    "libvirt zstd": (lambda data: image(5, zstd(data)), "of a running machine, zstd"),
    "libvirt sparse": (lambda data: image(6, bytes(4000) + data), "of a running machine, sparse"),
    "libvirt big-endian": (lambda data: image(1, gzip.compress(data), order=">"), "of a running machine, gzip"),
    "libvirt with a cookie": (lambda data: image(0, data, cookie=b"<qemusave/>\0"), "raw"),
    "libvirt partial": (lambda data: image(0, data, magic=b"LibvirtQemudPart"), "NOT FINISHED"),
    "libvirt in xz": (lambda data: lzma.compress(image(1, gzip.compress(data))), "of a running machine, gzip"),
    "offset": (lambda data: bytes(0x1234) + data, "begins behind 4660 zeros"),
    "tail": (lambda data: data + bytes(70_000), ""),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapped_stream_is_read_from_a_file_and_from_a_pipe(name: str, tmp_path: Path) -> None:
    wrap, said = WRAPPED[name]
    path = tmp_path / "wrapped"
    path.write_bytes(wrap(STREAM))
    ended = here("inspect", str(path))
    assert (ended.code, ended.err) == (0, "")
    assert said in ended.out
    assert "walked to the last byte" in ended.out
    piped = fed(path.read_bytes(), "inspect", "-")
    assert piped.out.splitlines()[1:] == ended.out.splitlines()[1:]
    assert here("vmsd", "diff", str(path), str(DATA / "qemu-streams" / "none.mig")).code == 0


def test_the_xml_of_a_save_image_is_shown_on_request(tmp_path: Path) -> None:
    path = tmp_path / "guest.save"
    path.write_bytes(image(3, lzma.compress(STREAM), cookie=b"<cookie/>\0"))
    assert here("inspect", str(path), "--xml").out == XML + "\n"
    plain = here("inspect", str(DATA / "qemu-streams" / "none.mig"), "--xml")
    assert plain.code == 2
    assert "it is no save image of libvirt" in plain.err


def test_an_offset_is_taken_as_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"something else".ljust(4096, b"\1") + STREAM)
    refused = here("inspect", str(path))
    assert refused.code == 1
    assert here("inspect", str(path), "--offset", "4096").code == 0
    assert here("inspect", str(path), "--offset", "99999999").err.startswith(f"migpool: {path} ends before --offset")
    assert fed(path.read_bytes(), "inspect", "-", "--offset", "4096").code == 0
    for before in (100, 99_999):
        path.write_bytes(b"\1" * before + STREAM)
        assert f"--offset {before}" in here("inspect", str(path)).err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x16\x03\x01\x02\0" + bytes(600), "a TLS connection (16 03)"),
        (b"QCPR\0\0\0\1", "CPR's own state (QCPR)"),
        (b"\x7fELF\2\1\1" + bytes(100), "an ELF file"),
        (b"22734@1796031797.857546:migration_bitmap_sync_start \n", "a log"),
        (b"2026-11-30T12:00:00.123456Z qemu-system-x86_64: \n", "a log"),
        (b'{"devices": []}', "JSON: a description of state"),
        (b"PK\3\4" + bytes(100), "a zip archive"),
        (bytes(257) + b"ustar" + bytes(300), "a tar archive"),
        (b"QEVM\0\0\0\2" + bytes(30), "a stream of QEMU before 0.14"),
        (bytes(3000), "zeros: if the stream begins further in"),
        (b"anything else", "something that is not known here (it begins with 61 6e 79"),
    ],
    ids=told,
)
def test_what_is_no_stream_is_named_for_what_it_is(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    ended = here("inspect", str(path))
    assert ended.code == 1
    assert said in ended.err
    assert "no migration stream" in ended.out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x89LZO\0\r\n\x1a\n" + bytes(50), "lzop -dc | migpool inspect -"),
        (image(4, b"\x89LZO\0\r\n\x1a\n"), "| lzop -dc | migpool inspect -"),
        (image(9, b"new"), "compressed in a way that is not known here (number 9; known are 0 raw"),
        (image(0, b"")[:50], "ends within its header, after 50 bytes"),
        (image(0, b"")[:100], "ends within its XML, after 100 bytes"),
        (image(0, b""), "ends before the stream"),
        (image(1, b"no gzip"), "cannot be decompressed: the gzip data are cut or damaged near their byte"),
        (gzip.compress(b""), "is empty: there is no stream in it (compressed with gzip)"),
    ],
    ids=told,
)
def test_a_wrapping_that_cannot_be_taken_off_is_named_with_what_to_do(
    content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="file"):
        streams.open(path).close()
    ended = here("inspect", str(path))
    assert ended.code == 2
    assert said in ended.err
    assert ended.err.count("\n") == 1


def test_a_way_of_compression_without_its_package_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "stream.lz4"
    path.write_bytes(b"\x04\x22\x4d\x18" + bytes(20))
    monkeypatch.setitem(__import__("sys").modules, "lz4.frame", None)
    ended = here("inspect", str(path))
    assert ended.code == 2
    assert "lz4 -dc | migpool inspect -" in ended.err
    assert "pip install 'migpool[compression]'" in ended.err


def test_what_stands_behind_an_error_of_a_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.write(b"\1")
        file.truncate(1 << 40)  # reading a TiB of holes would take minutes
    ended = here("inspect", str(path))
    assert ended.code == 1
    assert f"no migration stream, {1 << 40} bytes" in ended.out


def test_a_file_that_is_cut_short_meanwhile_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """If it were mapped, the process would end there, without a word."""
    data = random.Random(2).randbytes(3 * source.PIECE)
    path = tmp_path / "file"
    path.write_bytes(b"before" + data)
    with path.open("rb") as file:
        whole = source.FileSource(file.fileno(), len(b"before"))
        assert whole.read() == data[: source.PIECE]
        os.truncate(path, source.PIECE + 100)
        pieces = [bytes(piece) for piece in iter(whole.read, b"")]
    assert b"".join(pieces) == data[source.PIECE : source.PIECE + 100 - len(b"before")]
