"""What the guest has: the interpreter that runs this, its library, the packages that the tests need, and the checkout.

The part that seldom changes is kept in build/kernel, and made again when the interpreter, a package or this file is
another one. All is compiled beforehand: the emulated machine would take long for it. A guest in which QEMU runs has the
host's, with its libraries and its firmware.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path, PurePosixPath
from typing import Final

from packaging.requirements import Requirement

from tests.kernel.cpio import Archive

__all__ = ["build"]

CHECKOUT: Final = Path(__file__).parents[2]
PACKAGES: Final = (
    *("migpool", "cryptography", "pytest", "pytest-rerunfailures", "pytest-timeout", "hypothesis", "simpy", "qemu.qmp"),
)
CODE: Final = (
    "benchmarks",
    "migpool",
    "migpool_plugins",
    "tests/kernel",
    "tests/nested",
    "tests/qemu",
    "tests/support",
)
FILES: Final = ("pyproject.toml", "tests/__init__.py", "tests/conftest.py")
FIRMWARE: Final = ("bios-256k.bin", "kvmvapic.bin")
DATA: Final = (Path("/usr/share/qemu"), Path("/usr/share/seabios"))
_WITHOUT: Final = frozenset(
    {"__pycache__", "test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3", "tkinter", "turtledemo"}
    | {"ensurepip", "pydoc_data", "config"}
)
_LIBRARY: Final = re.compile(r"(?:=> )?(/\S+) \(0x")


def build(files: Path, *, qemu: bool) -> Path:
    """Return the archive to boot with.

    Arguments:
        files: where setup has put the drivers; the archive is put there too.
        qemu: whether QEMU runs in the guest.
    """
    kept = _kept(files)
    made = files / "initramfs"
    with tempfile.TemporaryDirectory() as scratch, made.open("wb") as file:
        with kept.open("rb") as base:
            shutil.copyfileobj(base, file)
        code = Path(scratch)
        for name in CODE:
            shutil.copytree(CHECKOUT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
        _compile(code, "/checkout")
        with Archive(file) as archive:
            archive.add_tree(PurePosixPath("checkout"), code)
            for name in FILES:
                archive.add_file(f"checkout/{name}", CHECKOUT / name)
            archive.add_tree(PurePosixPath("modules"), files / "modules")
            if qemu:
                _add_qemu(archive)
            first = (CHECKOUT / "tests/kernel/guest/init.py").read_bytes()
            archive.add("init", f"#!{_interpreter()} -B\n".encode() + first, 0o755)
    return made


def _kept(files: Path) -> Path:
    """The part without the checkout, from the last run if it still is what it should be."""
    packages = list(_with_dependencies(PACKAGES))
    contents = [sys.version, str(_interpreter()), Path(__file__).read_text("utf-8")]
    contents += sorted(f"{package.name} {package.version}" for package in packages)
    # The entry points of the checkout are installed with it, and change without its version.
    contents += [str(package.read_text("entry_points.txt")) for package in packages]
    key = hashlib.sha256("\0".join(contents).encode()).hexdigest()[:16]
    kept = files / f"interpreter-{key}"
    if kept.exists():
        return kept
    for old in files.glob("interpreter-*"):
        old.unlink()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        library = Path(sysconfig.get_path("stdlib"))
        shutil.copytree(library, root / library.relative_to("/"), ignore=_unneeded)
        for package in packages:
            _copy_package(package, root / "site")
        _compile(root, "/")
        shared = [_interpreter(), *root.rglob("*.so")]
        with (files / "interpreter.new").open("wb") as file, Archive(file) as archive:
            archive.add_console()
            archive.add_tree(PurePosixPath(), root)
            for path in (_interpreter(), *_libraries(shared)):
                archive.add_file(str(path.relative_to("/")), path)
            if Path("/etc/ld.so.cache").exists():
                archive.add_file("etc/ld.so.cache", Path("/etc/ld.so.cache"))
    return (files / "interpreter.new").rename(kept)


def _add_qemu(archive: Archive) -> None:
    program = Path(shutil.which("qemu-system-x86_64") or "")
    for path in (program, *_libraries([program])):
        archive.add_file(str(path.relative_to("/")), path)
    for name in FIRMWARE:
        path = next(directory / name for directory in DATA if (directory / name).exists())
        archive.add_file(str(path.relative_to("/")), path)


def _interpreter() -> Path:
    """The program behind the virtual environment."""
    return Path(os.path.realpath(sys.executable))


def _unneeded(_directory: str, names: list[str]) -> Iterable[str]:
    return [name for name in names if name in _WITHOUT or name.startswith("config-") or name.endswith(".a")]


def _with_dependencies(names: Iterable[str]) -> Iterator[Distribution]:
    waiting, seen = list(names), set(names)
    while waiting:
        found = distribution(waiting.pop())
        yield found
        for text in found.requires or ():
            requirement = Requirement(text)
            name = requirement.name.lower().replace("_", "-")
            if name not in seen and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                seen.add(name)
                waiting.append(name)


def _copy_package(package: Distribution, site: Path) -> None:
    for entry in package.files or ():
        # A package's programs, and its link to a checkout, lie outside it.
        if entry.parts[0] != ".." and entry.suffix not in (".pyc", ".pth") and "__editable__" not in entry.name:
            target = site / entry
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(entry.locate()), target)


def _compile(directory: Path, as_if: str) -> None:
    """Compile all modules; what is compiled is believed, whatever the time of its source."""
    compileall.compile_dir(
        directory,
        maxlevels=20,
        quiet=2,
        workers=0,
        stripdir=str(directory),
        prependdir=as_if,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def _libraries(programs: Iterable[Path]) -> list[Path]:
    """The shared libraries that programs and modules need, the loader among them, as the loader finds them."""
    said = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, timeout=60, check=False).stdout
    return sorted({Path(found) for found in _LIBRARY.findall(said)})
