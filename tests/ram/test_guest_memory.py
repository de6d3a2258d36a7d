"""Guest memory of this process: there from the beginning, or page by page."""

from __future__ import annotations

import ctypes
import mmap

import pytest

import migpool_plugins.memory
from migpool.device import DeviceError
from migpool_plugins.guest.options import GuestOptions
from migpool_plugins.memory import Memory

SIZE = 96 << 20


def resident_at(address: int) -> int:
    """Bytes of the mapping at an address that are in memory.

    Asked page by page: the kernel's list of mappings joins this one with a neighbour of another owner.
    """
    pages = ctypes.create_string_buffer(SIZE // mmap.PAGESIZE)
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(SIZE), pages) == 0
    return sum(page & 1 for page in pages.raw[: SIZE // mmap.PAGESIZE]) * mmap.PAGESIZE


@pytest.mark.parametrize("known", [True, False], ids=["populate", "touch"])
def test_resident_memory_is_there_and_holds_zeros(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not known:
        monkeypatch.setattr(migpool_plugins.memory, "_POPULATE_WRITE", 9999)  # what an older kernel says no to
    memory = Memory(SIZE, resident=True)
    assert resident_at(memory.address) >= SIZE
    assert bytes(memory.view[:: mmap.PAGESIZE]) == bytes(SIZE // mmap.PAGESIZE)
    memory.close()


def test_other_memory_comes_as_it_is_touched() -> None:
    memory = Memory(SIZE)
    assert resident_at(memory.address) == 0
    memory.view[5] = 1
    assert 0 < resident_at(memory.address) < SIZE
    memory.close()


def test_a_guest_says_which() -> None:
    assert GuestOptions.parse({}).resident
    assert not GuestOptions.parse({"resident": False}).resident
    with pytest.raises(DeviceError, match="guest option resident is 1: use true or false"):
        GuestOptions.parse({"resident": 1})
