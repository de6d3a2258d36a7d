"""The guest's first process: loads the drivers, runs the tests, says how they ended, ends the machine.

It has no shell and no other program: the interpreter calls the kernel itself. What it prints goes to the second serial
port; the first one is the kernel's.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import termios
import traceback
import tty
from pathlib import Path

CHECKOUT = Path("/checkout")
MODULES = ("vfio", "vfio_iommu_type1", "mdev", "cryptd", "crypto_simd", "gf128mul", "aesni-intel", "tls")
MORE_STATE = "--state="
LIBC = ctypes.CDLL(None, use_errno=True)
SYS_FINIT_MODULE = 313
RESTART = 0x01234567
"""Ends this QEMU, and needs no ACPI."""
SIOCSIFFLAGS = 0x8914
INTERFACE_UP = 1


def check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(kind: str, where: str) -> None:
    Path(where).mkdir(parents=True, exist_ok=True)
    check(LIBC.mount(kind.encode(), where.encode(), kind.encode(), 0, None), f"mount {where}")


def load(module: str, parameters: str = "") -> None:
    if not Path("/modules").exists():
        return  # all drivers are built in
    with Path(f"/modules/{module}.ko").open("rb") as file:
        check(LIBC.syscall(SYS_FINIT_MODULE, file.fileno(), parameters.encode(), 0), f"load {module}")


def loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", INTERFACE_UP))


def uptime() -> str:
    return Path("/proc/uptime").read_text().split()[0]


def run(suite: str, *more: str) -> int:
    os.environ.update(
        PATH=f"{Path(sys.executable).parent}:/usr/bin",
        HOME="/tmp",
        LANG="C.UTF-8",
        PYTHONPATH=f"/site:{CHECKOUT}",
        PYTHONDONTWRITEBYTECODE="1",
        MIGPOOL_KERNEL_REQUIRED="1",
        MIGPOOL_NESTED_REQUIRED="1",
        COLUMNS="120",
    )
    print(f"guest: up after {uptime()} s", flush=True)
    for module in MODULES:
        load(module)
    more_state = [word.removeprefix(MORE_STATE) for word in more if word.startswith(MORE_STATE)]
    if more_state:
        load("mtty-large", f"more={more_state[-1]}")
    else:
        load("mtty")
    loopback()
    os.chdir(CHECKOUT)
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no"]
    tests = [*pytest, "-m", suite, f"tests/{suite}", *more]
    # Through a pipe, so that pytest does not take the port for a terminal.
    with subprocess.Popen(tests, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        while said := os.read(process.stdout.fileno(), 1 << 16):
            os.write(1, said)
    return process.returncode


def main() -> None:
    mount("devtmpfs", "/dev")
    mount("proc", "/proc")
    mount("sysfs", "/sys")
    mount("tmpfs", "/tmp")
    port = os.open("/dev/ttyS1", os.O_RDWR | os.O_NOCTTY)
    tty.setraw(port)
    for standard in (0, 1, 2):
        os.dup2(port, standard)
    try:
        status = run(*sys.argv[1:])
    except Exception:  # noqa: BLE001 - nobody is above the first process
        traceback.print_exc()
        status = 1
    print(f"guest: the tests ended with status {status} after {uptime()} s", flush=True)
    termios.tcdrain(port)
    LIBC.reboot(RESTART)


main()
