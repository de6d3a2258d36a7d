"""A config says what it is; a destination refuses what it cannot load, in one line, before the machine is stopped."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from migpool.device import DeviceError
from migpool.vmsd.description import Description
from migpool.vmsd.jsonform import section_structure
from migpool_plugins.vcpu.kvm_board import board_parts
from migpool_plugins.vcpu.kvm_host import KvmHost
from migpool_plugins.vcpu.kvm_vcpu_parts import vcpu_parts
from migpool_plugins.vcpu.state import FPU, PAGE, REGS, SREGS, RegisterFormat, StateFormat

HEADER = 32
MSRS = 5
HOST = KvmHost(frozenset({"KVM_CAP_SREGS2", "KVM_CAP_XSAVE"}), 8192, ())
LAYOUT = [*(form for part in vcpu_parts(HOST, range(MSRS)) for form in part.formats), PAGE]
BOARD = [form for part in board_parts(HOST) for form in part.formats]
ALWAYS = {"regs", "sregs", "fpu", "page"}


def filled(form: RegisterFormat) -> bytes:
    """A set in which every named value differs from its neighbours."""
    many = {"msrs": MSRS, "xsave_large": 512}.get(form.name, 1)
    values = [
        bytes(range(number % 7, number % 7 + 256 - 7)).ljust(len(value), b"\xee")
        if isinstance(value, bytes)
        else number % 251 + 1
        for number, value in enumerate(form.struct.unpack(bytes(form.struct.size)) * many)
    ]
    width = len(form.fields)
    return b"".join(form.struct.pack(*values[at : at + width]) for at in range(0, len(values), width))


def some_sets(layout: list[RegisterFormat]) -> dict[str, bytes]:
    return {form.name: filled(form) for form in layout}


def always(sets: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in sets.items() if name in ALWAYS}


@pytest.fixture
def vcpu() -> StateFormat:
    return StateFormat("vcpu", "KVM", LAYOUT)


@pytest.fixture
def board() -> StateFormat:
    return StateFormat("vcpu-board", "KVM", BOARD)


def test_a_state_comes_back_as_it_was(vcpu: StateFormat) -> None:
    sets = some_sets(LAYOUT)
    assert vcpu.decode(1, vcpu.encode(1, sets)) == sets


def test_a_board_comes_back_as_it_was(board: StateFormat) -> None:
    sets = some_sets(BOARD)
    assert board.decode(0, board.encode(0, sets)) == sets
    assert board.decode(0, board.encode(0, {})) == {}


@pytest.mark.parametrize("name", [form.name for form in LAYOUT if form.optional])
def test_any_optional_set_may_be_missing(vcpu: StateFormat, name: str) -> None:
    sets = some_sets(LAYOUT)
    assert vcpu.decode(1, vcpu.encode(1, {**always(sets), name: sets[name]})) == {**always(sets), name: sets[name]}
    del sets[name]
    assert vcpu.decode(1, vcpu.encode(1, sets)) == sets


def test_a_counted_set_may_have_another_length_than_here(vcpu: StateFormat) -> None:
    sets = {**some_sets(LAYOUT), "msrs": bytes(16 * 300)}
    assert vcpu.decode(1, vcpu.encode(1, sets)) == sets


def test_a_config_begins_with_its_header(vcpu: StateFormat) -> None:
    assert vcpu.encode(1, some_sets(LAYOUT))[:HEADER] == vcpu.header(1)


def test_a_config_measures_itself_once_the_byte_behind_it_has_come(vcpu: StateFormat) -> None:
    config = vcpu.encode(1, some_sets(LAYOUT))
    for length in (HEADER - 1, HEADER, 1000, len(config) - 1, len(config)):
        assert vcpu.measure(1, memoryview(config)[:length]) is None
    assert vcpu.measure(1, memoryview(config + b"\x7e more")) == len(config)


def test_a_reader_who_has_only_the_stream_finds_every_value_by_name(vcpu: StateFormat) -> None:
    sets = some_sets(LAYOUT)
    section = {"name": "vcpu", "instance_id": 0, **vcpu.describe(0, sets)}
    found: dict[str, object] = {}
    Description.from_structure(section_structure(section, 1)).load(found, vcpu.encode(0, sets))
    for form in (REGS, SREGS, FPU):
        assert found[form.name] == form.values(sets[form.name])
    for form in LAYOUT:
        if form.optional and not form.repeats:
            part = found[f"vcpu/{form.name}"]
            assert isinstance(part, dict)
            assert part[form.name] == dict(zip(form.fields, form.struct.unpack(sets[form.name]), strict=True))
    msrs = found["vcpu/msrs"]
    assert isinstance(msrs, dict)
    assert msrs["count"] == MSRS
    assert msrs["msrs"][1] == {"index": 3, "value": 4}


def test_a_description_made_before_the_stop_reads_a_state_with_fewer_subsections(vcpu: StateFormat) -> None:
    sets = some_sets(LAYOUT)
    section = {"name": "vcpu", "instance_id": 0, **vcpu.describe(0, sets)}
    reader = Description.from_structure(section_structure(section, 1))
    for form in LAYOUT:
        if form.optional:
            found: dict[str, object] = {}
            reader.load(found, vcpu.encode(0, {name: data for name, data in sets.items() if name != form.name}))
            assert f"vcpu/{form.name}" not in found


def test_numbers_are_big_endian_in_the_config(vcpu: StateFormat) -> None:
    sets = {**some_sets(LAYOUT), "mp_state": (0x01020304).to_bytes(4, "little")}
    assert bytes.fromhex("01020304") in vcpu.encode(0, sets)


@pytest.mark.parametrize("kind", ["Unicorn", "KVM-AVX"])
def test_a_state_of_another_kind_is_refused(vcpu: StateFormat, kind: str) -> None:
    with pytest.raises(DeviceError) as refused:
        vcpu.check_header(0, StateFormat("vcpu", kind, LAYOUT).header(0))
    assert str(refused.value) == (
        f"the state is one of {kind}, this vCPU is one of KVM: set the same backend and cpu at both ends"
    )


def test_a_state_of_another_vcpu_is_refused(vcpu: StateFormat) -> None:
    with pytest.raises(DeviceError, match=r"^the state is that of vCPU 2, this is vCPU 1$"):
        vcpu.decode(1, vcpu.encode(2, some_sets(LAYOUT)))


@pytest.mark.parametrize(
    ("offset", "message"),
    [
        (0, "this is no vCPU state: the header is missing or damaged"),
        (5, "the state has layout 3, this vCPU loads 2: use the same version"),
        (16, "the source runs another guest program: use the same version at both ends"),
    ],
)
def test_a_damaged_header_is_refused(vcpu: StateFormat, offset: int, message: str) -> None:
    config = bytearray(vcpu.encode(1, some_sets(LAYOUT)))
    config[offset] ^= 1
    with pytest.raises(DeviceError) as refused:
        vcpu.measure(1, memoryview(config))
    assert str(refused.value) == message


@pytest.mark.parametrize("length", [0, HEADER - 1, HEADER, HEADER + 1, 5000, -1])
def test_a_config_that_is_cut_off_is_refused(vcpu: StateFormat, length: int) -> None:
    with pytest.raises(DeviceError):
        vcpu.decode(1, vcpu.encode(1, some_sets(LAYOUT))[:length])


def test_a_config_that_is_too_long_is_refused(vcpu: StateFormat) -> None:
    with pytest.raises(DeviceError, match="1 bytes follow"):
        vcpu.decode(1, vcpu.encode(1, some_sets(LAYOUT)) + b"\0")
