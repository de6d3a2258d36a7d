"""The guest's bytes are what its source assembles to, and its memory is laid out without overlaps."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest

from migpool_plugins.guest.layout import (
    CONTROL,
    DATA,
    MAX_VCPUS,
    OUT_BY_DOORBELL,
    OUT_BY_HALT,
    PAGE_SIZE,
    GuestLayout,
    program_bytes,
)

MIB = 1 << 20


def _missing() -> str:
    if platform.machine() != "x86_64":
        return f"the assembler of {platform.machine()} does not assemble x86"
    absent = [tool for tool in ("gcc", "objcopy", "nm") if shutil.which(tool) is None]
    return f"{', '.join(absent)} not installed" if absent else ""


@pytest.mark.skipif(bool(_missing()), reason=_missing() or "all is there")
def test_the_guests_source_assembles_to_the_bytes_in_the_tree(tmp_path: Path) -> None:
    source = resources.files("migpool_plugins.guest") / "program" / "program.S"
    text, object_file, binary = tmp_path / "program.S", tmp_path / "program.o", tmp_path / "program.bin"
    text.write_text(source.read_text())
    subprocess.run(["gcc", "-c", "-x", "assembler", text, "-o", object_file], check=True, timeout=30)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", object_file, binary], check=True, timeout=30)
    assert binary.read_bytes() == program_bytes()

    listing = subprocess.run(["nm", object_file], check=True, timeout=30, capture_output=True, text=True).stdout
    symbols = {name: int(address, 16) for address, _kind, name in (line.split() for line in listing.splitlines())}
    assert symbols["step"] == 0
    assert symbols["doorbell"] == OUT_BY_DOORBELL
    assert symbols["halt"] == OUT_BY_HALT


@pytest.mark.parametrize("vcpus", [1, 2, 3, 64])
@pytest.mark.parametrize("size", [16 * MIB, 256 * MIB, 512 * MIB])
def test_the_parts_of_the_memory_do_not_overlap(size: int, vcpus: int) -> None:
    layout = GuestLayout(size, vcpus, "random", 1024, 1)
    assert len(program_bytes()) <= layout.control(0)
    assert layout.control(vcpus - 1) + CONTROL.size <= layout.control(MAX_VCPUS) <= DATA
    places = [layout.region(index) for index in range(vcpus)] + list(layout.untouched)
    assert places[0].start == DATA
    assert places[-1].stop == size
    assert all(before.stop == after.start for before, after in pairwise(places))
    assert all(place.start % PAGE_SIZE == 0 for place in places)
