"""What the backend believes of VFIO's and iommufd's structures and numbers is what the kernel's headers say.

Headers may be older than the interface: what they do not know is left out by their own macros. ``make kernel`` brings
those of a kernel that knows all.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from migpool_plugins.ioctl import Request
from migpool_plugins.vfio import migration
from migpool_plugins.vfio.kernel import abi
from migpool_plugins.vfio.migration import Feature, FeatureFlag, Flags, MigrationState

BROUGHT: Final = Path(__file__).parents[2] / "build" / "kernel" / "uapi"
INSTALLED: Final = Path("/usr/include")

# By the header, and the macro that is there if the header knows them: what C calls it, and what it is here.
_KNOWN = "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE"
_STATES = {f"VFIO_DEVICE_STATE_{state.name}": int(state) for state in MigrationState}
_NEWER_STATES = {name: _STATES.pop(name) for name in ("VFIO_DEVICE_STATE_PRE_COPY", "VFIO_DEVICE_STATE_PRE_COPY_P2P")}
_REQUESTS = {value.name: value.number for value in vars(abi).values() if isinstance(value, Request)}


def requests(*names: str) -> dict[str, int]:
    return {name: _REQUESTS[name] for name in names}


def offsets(structure: str, **members: int) -> dict[str, int]:
    return {f"offsetof(struct {structure}, {name})": at for name, at in members.items()}


VFIO: dict[str, dict[str, int]] = {
    "VFIO_API_VERSION": {
        "VFIO_API_VERSION": abi.API_VERSION,
        "VFIO_TYPE1v2_IOMMU": abi.TYPE1V2_IOMMU,
        **requests("VFIO_GET_API_VERSION", "VFIO_CHECK_EXTENSION", "VFIO_SET_IOMMU"),
        **requests("VFIO_GROUP_GET_STATUS", "VFIO_GROUP_SET_CONTAINER", "VFIO_GROUP_GET_DEVICE_FD"),
        **requests("VFIO_DEVICE_RESET", "VFIO_DEVICE_FEATURE"),
        "sizeof(struct vfio_group_status)": abi.GROUP_STATUS.size,
        **offsets("vfio_group_status", flags=4),
        "VFIO_GROUP_FLAGS_VIABLE": abi.GROUP_FLAGS_VIABLE,
        "sizeof(struct vfio_device_feature)": migration.FEATURE_HEADER.size,
        **offsets("vfio_device_feature", flags=4, data=8),
        "VFIO_DEVICE_FEATURE_GET": int(FeatureFlag.GET),
        "VFIO_DEVICE_FEATURE_SET": int(FeatureFlag.SET),
    },
    _KNOWN: {
        "VFIO_DEVICE_FEATURE_MIGRATION": int(Feature.MIGRATION),
        "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE": int(Feature.MIG_DEVICE_STATE),
        "sizeof(struct vfio_device_feature_migration)": migration.MIGRATION.size,
        "sizeof(struct vfio_device_feature_mig_state)": migration.MIG_STATE.size,
        **offsets("vfio_device_feature_mig_state", device_state=0, data_fd=4),
        "VFIO_MIGRATION_STOP_COPY": int(Flags.STOP_COPY),
        "VFIO_MIGRATION_P2P": int(Flags.P2P),
        **_STATES,
    },
    "VFIO_MIGRATION_PRE_COPY": {
        "VFIO_MIGRATION_PRE_COPY": int(Flags.PRE_COPY),
        **_NEWER_STATES,
        **requests("VFIO_MIG_GET_PRECOPY_INFO"),
        "sizeof(struct vfio_precopy_info)": abi.PRECOPY_INFO.size,
        **offsets("vfio_precopy_info", flags=4, initial_bytes=8, dirty_bytes=16),
    },
    "VFIO_DEVICE_FEATURE_MIG_DATA_SIZE": {
        "VFIO_DEVICE_FEATURE_MIG_DATA_SIZE": int(Feature.MIG_DATA_SIZE),
        "sizeof(struct vfio_device_feature_mig_data_size)": migration.MIG_DATA_SIZE.size,
    },
    "VFIO_DEVICE_BIND_IOMMUFD": {
        **requests("VFIO_DEVICE_BIND_IOMMUFD", "VFIO_DEVICE_ATTACH_IOMMUFD_PT"),
        "sizeof(struct vfio_device_bind_iommufd)": abi.BIND_IOMMUFD.size,
        **offsets("vfio_device_bind_iommufd", flags=4, iommufd=8, out_devid=12),
        # Newer headers may say more behind it, and the kernel takes the shorter one.
        "offsetof(struct vfio_device_attach_iommufd_pt, pt_id) + 4": abi.ATTACH_IOMMUFD_PT.size,
        **offsets("vfio_device_attach_iommufd_pt", flags=4, pt_id=8),
    },
}
IOMMUFD: dict[str, dict[str, int]] = {
    "IOMMU_IOAS_ALLOC": {
        **requests("IOMMU_IOAS_ALLOC"),
        "sizeof(struct iommu_ioas_alloc)": abi.IOAS_ALLOC.size,
        **offsets("iommu_ioas_alloc", flags=4, out_ioas_id=8),
    }
}


def kernels(headers: Path, header: str, groups: dict[str, dict[str, int]], folder: Path) -> dict[str, int]:
    """What a header says of those things that it knows."""
    lines: list[str] = []
    for macro, names in groups.items():
        lines += [
            f"#ifdef {macro}",
            *(f'printf("{name}=%lu\\n", (unsigned long)({name}));' for name in names),
            "#endif",
        ]
    body = "\n".join(lines)
    source = folder / "abi.c"
    source.write_text(
        f"#include <stdio.h>\n#include <stddef.h>\n#include <linux/{header}>\nint main(void) {{\n{body}\nreturn 0; }}\n"
    )
    # Headers that nobody has installed still say which pointers are the caller's.
    subprocess.run(["gcc", "-D__user=", "-I", headers, "-o", folder / "abi", source], check=True, timeout=30)
    said = subprocess.run([folder / "abi"], check=True, timeout=10, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in (line.rsplit("=", 1) for line in said.splitlines())}


def ours(groups: dict[str, dict[str, int]]) -> dict[str, int]:
    return {name: value for names in groups.values() for name, value in names.items()}


def need(headers: Path, header: str) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    if not (headers / "linux" / header).exists():
        pytest.skip(f"{headers}/linux/{header} is not there: linux-libc-dev has one, make kernel brings a newer one")


def test_vfio_as_far_as_the_installed_headers_know_it(tmp_path: Path) -> None:
    need(INSTALLED, "vfio.h")
    said = kernels(INSTALLED, "vfio.h", VFIO, tmp_path)
    assert said.keys() >= VFIO["VFIO_API_VERSION"].keys()
    assert said.items() <= ours(VFIO).items()


def test_iommufd_by_the_installed_headers(tmp_path: Path) -> None:
    need(INSTALLED, "iommufd.h")
    assert kernels(INSTALLED, "iommufd.h", IOMMUFD, tmp_path) == ours(IOMMUFD)


@pytest.mark.parametrize(("header", "groups"), [("vfio.h", VFIO), ("iommufd.h", IOMMUFD)], ids=["vfio", "iommufd"])
def test_all_by_the_headers_that_make_kernel_brings(
    tmp_path: Path, header: str, groups: dict[str, dict[str, int]]
) -> None:
    need(BROUGHT, header)
    assert kernels(BROUGHT, header, groups, tmp_path) == ours(groups)


def test_no_request_is_left_out() -> None:
    assert _REQUESTS.keys() <= ours(VFIO).keys() | ours(IOMMUFD).keys()
    assert len(_REQUESTS) > 10
