"""The guest's bytes are what its source assembles to, and lie where the backends expect them."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from migpool_plugins.vcpu import program


def _missing() -> str:
    if platform.machine() != "x86_64":
        return f"the assembler of {platform.machine()} does not assemble x86"
    absent = [tool for tool in ("gcc", "objcopy", "nm") if shutil.which(tool) is None]
    return f"{', '.join(absent)} not installed" if absent else ""


@pytest.mark.skipif(bool(_missing()), reason=_missing() or "all is there")
def test_the_source_assembles_to_the_bytes_in_the_tree(tmp_path: Path) -> None:
    source = resources.files("migpool_plugins.vcpu") / "guest" / "program.S"
    text, object_file, binary = tmp_path / "program.S", tmp_path / "program.o", tmp_path / "program.bin"
    text.write_text(source.read_text())
    subprocess.run(["gcc", "-c", "-x", "assembler", text, "-o", object_file], check=True, timeout=30)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", object_file, binary], check=True, timeout=30)
    assert binary.read_bytes() == program.program_bytes()

    listing = subprocess.run(["nm", object_file], check=True, timeout=30, capture_output=True, text=True).stdout
    symbols = {name: int(address, 16) for address, _kind, name in (line.split() for line in listing.splitlines())}
    assert program.CODE + symbols["iterate"] == program.CODE
    assert program.CODE + symbols["doorbell"] == program.OUT_BY_DOORBELL
    assert program.CODE + symbols["halt"] == program.OUT_BY_HALT


def test_the_parts_of_guest_memory_do_not_overlap() -> None:
    assert program.PAGE_TABLES + 3 * program.PAGE_SIZE <= program.CODE
    assert program.CODE + len(program.program_bytes()) <= program.FIRST_PAGE
    assert program.page_address(program.MAX_VCPUS) <= program.DOORBELL < 2 << 20


def test_every_vcpu_of_every_migration_starts_with_a_number_of_its_own() -> None:
    assert len({program.start_value(seed, index) for seed in range(20) for index in range(20)}) == 400
