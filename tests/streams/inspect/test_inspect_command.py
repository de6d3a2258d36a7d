"""``migpool inspect`` as a user sees it."""

from __future__ import annotations

import gzip
import json
import os
import re
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from migpool.streams.record.index import Connection, Ended, Flow, Index, Moment, Role, store
from tests.support import DATA
from tests.support.commandline import here
from tests.support.inspect_command import on_terminal, piped
from tests.support.other_streams import RICH, other, other_path

TRUTH = RICH.with_name("q35-rich.state.json.gz")


def test_the_overview_names_machine_commands_ram_and_every_section() -> None:
    ended = here("inspect", str(RICH))
    assert (ended.code, ended.err) == (0, "")
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert lines[0] == f"{RICH}: migration stream, 389780 bytes (381 KiB), walked to the last byte"
    for expected in (
        "header QEVM, version 3",
        "machine pc-q35-10.0",
        "SWITCHOVER_START at byte 44036",
        "ram 6 blocks, 8724480 bytes (8.3 MiB); in the stream 2130 pages (6 normal, 2124 zero)",
        "pc.ram 8388608 bytes (8.0 MiB): 2048 pages (0 normal, 2048 zero)",
        "FULL cpu#1 id 8, instance 1, version 12, 1851 bytes at byte 46432, described",
        "description 39 devices, 78182 bytes (76.3 KiB) at byte 311593",
    ):
        assert expected in lines
    assert sum(line.startswith("FULL ") for line in lines) == 39


def test_the_fields_of_all_devices_are_those_that_an_independent_decoder_found() -> None:
    ended = here("inspect", str(RICH), "--device", "*", "--json")
    assert ended.code == 0
    document = json.loads(ended.out)
    ids = {(section["idstr"], section["instance_id"]): section["section_id"] for section in document["sections"]}
    found = {
        f"{each['idstr']} ({ids[each['idstr'], each['instance_id']]})": each["fields"] for each in document["devices"]
    }
    truth = json.loads(gzip.decompress(TRUTH.read_bytes()))
    blocks = {block["name"]: f"0x{block['used_length']:016x}" for block in document["ram"]["blocks"]}
    assert truth.pop("ram (1)") == {"section sizes": blocks}
    assert found == truth
    assert all(each["exact"] and each["fault"] is None for each in document["devices"])


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("apic", ["apic", "apic"]),
        ("apic#1", ["apic"]),
        ("*ahci*", ["0000:00:1f.2/ich9_ahci", "0000:00:04.0/ich9_ahci"]),
        ("cpu*#1", ["cpu_common", "cpu"]),
    ],
)
def test_devices_are_asked_for_by_id_instance_and_pattern(pattern: str, found: list[str]) -> None:
    ended = here("inspect", str(RICH), "--device", pattern, "--json")
    assert [device["idstr"] for device in json.loads(ended.out)["devices"]] == found


def test_the_fields_of_a_device_are_printed_by_name_nested_as_described() -> None:
    out = here("inspect", str(RICH), "--device", "hpet").out
    assert re.search(r"num_timers_save +0x03", out)
    assert re.search(r"timer +3 elements\n    \[0\]\n      tn +0x00\n", out)


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    ended = here("inspect", str(RICH), "--device", "apci")
    assert (ended.code, ended.out.strip()) == (2, "")
    assert ended.err.startswith("migpool: no device matches apci; there are 'timer', 'cpu_common', 'cpu', ")


def test_the_document_has_the_documented_keys_and_says_what_is_missing() -> None:
    document = json.loads(here("inspect", str(other_path("none-bare")), "--json").out)
    assert list(document) == [
        *(
            "schema",
            "kind",
            "envelope",
            "size",
            "walked",
            "complete",
            "header",
            "configuration",
            "page_size",
            "footers",
        ),
        *("commands", "ram", "sections", "eof", "description", "problem", "notes"),
    ]
    assert (document["schema"], document["kind"], document["complete"]) == (1, "stream", False)
    assert (document["configuration"], document["footers"], document["description"]) == (None, False, None)
    assert document["problem"]["offset"] == document["walked"] == 73


def test_a_damaged_stream_is_shown_and_the_exit_code_is_1(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("damaged") / "cut.mig"
    path.write_bytes(RICH.read_bytes()[:60000])
    ended = here("inspect", str(path))
    assert ended.code == 1
    assert "FULL  0000:00:00.0/mch" in ended.out
    assert re.search(r"error +payload of FULL section 17 of '0000:00:1f.0/ICH9LPC' \(0\) at byte 49537: ", ended.out)
    assert ended.err.startswith("migpool: payload of FULL section 17 of ")
    assert ended.err.count("\n") == 1


def test_a_stream_is_read_from_standard_input_and_from_a_named_pipe(tmp_path_factory: pytest.TempPathFactory) -> None:
    expected = here("inspect", str(RICH), "--json").out
    assert piped(RICH.read_bytes(), "inspect", "-", "--json").out == expected
    fifo = tmp_path_factory.mktemp("pipe") / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(RICH.read_bytes(),))
    writer.start()
    ended = here("inspect", str(fifo), "--json")
    writer.join(10)
    assert ended.out == expected
    cut = piped(other("none-no-footers")[:-5], "inspect", "-")
    assert cut.code == 1
    assert "sections have no footers" in cut.err


def test_on_a_terminal_it_is_a_tree_that_fits() -> None:
    for columns in (40, 80, 200):
        ended = on_terminal(columns, "inspect", str(RICH), "--device", "hpet")
        lines = re.sub(r"\x1b\[[0-9;]*m", "", ended.out).replace("\r", "").splitlines()
        assert ended.code == 0
        assert any(line.startswith("├── ") for line in lines)
        assert max(map(len, lines)) <= columns
    overview = on_terminal(60, "inspect", str(RICH))
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in overview.out.replace("\r", "").splitlines()) <= 60


def recording(folder: Path, *, complete: bool) -> Path:
    """A recording of one connection, on which the rich machine's main channel passed in a second."""
    stream = RICH.read_bytes()
    (folder / "000-source.bytes").write_bytes(stream)
    (folder / "000-source.times").write_bytes(struct.pack("<4Q", 10**9, 1000, 2 * 10**9, len(stream)))
    flow = Flow(len(stream), len(stream), Ended.CLOSED, "000-source.bytes", "000-source.times")
    main = Connection(0, Role.MAIN, None, "", 10**9, 2 * 10**9, flow, Flow())
    begin, end = Moment(10**9, "2025-01-01T00:00:00Z"), Moment(2 * 10**9, "2025-01-01T00:00:01Z")
    store(folder, Index("tcp:a:1", "tcp:b:1", begin, end, complete, "" if complete else "cut", (main,)))
    return folder


def test_a_recording_is_explained_and_drawn(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = recording(tmp_path_factory.mktemp("recording"), complete=True)
    ended = here("inspect", str(folder), "--picture", str(folder / "picture.svg"))
    assert (ended.code, ended.err) == (0, "")
    assert "machine pc-q35-10.0" in ended.out
    assert (folder / "picture.svg").read_text().lstrip().startswith(("<svg", "<?xml"))
    document = json.loads(here("inspect", str(folder), "--json").out)
    assert (document["kind"], document["machine"]) == ("recording", "pc-q35-10.0")
    shown = here("inspect", str(folder), "--device", "cpu")
    assert shown.out.startswith("cpu: id ")


def test_a_recording_that_is_not_complete_is_explained_with_exit_code_1(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    ended = here("inspect", str(recording(tmp_path_factory.mktemp("recording"), complete=False)))
    assert ended.code == 1
    assert "NOT COMPLETE: cut" in ended.out


def test_a_stream_cannot_be_drawn() -> None:
    ended = here("inspect", str(RICH), "--picture", "x.svg")
    assert (ended.code, ended.err) == (2, "migpool: --picture draws a recording: name its directory\n")


def test_a_directory_without_a_recording_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("nothing")
    ended = here("inspect", str(folder))
    assert ended.code == 2
    assert ended.err.startswith(f"migpool: {folder} is no recording, as it has no index.json")


def test_files_that_cannot_be_read_are_wrong_usage() -> None:
    ended = here("inspect", str(DATA / "nothing.mig"))
    assert (ended.code, ended.err) == (
        2,
        f"migpool: {DATA / 'nothing.mig'} cannot be read: No such file or directory\n",
    )


def test_the_command_imports_nothing_that_takes_long() -> None:
    slow = ("typer", "rich", "pydantic", "structlog", "numpy", "email", "tempfile", "lzma", "migpool_plugins")
    code = (
        f"import atexit, sys; from migpool.cli import main;"
        f"atexit.register(lambda: print([name for name in {slow} if name in sys.modules]));"
        f"sys.argv = ['migpool', 'inspect', {str(RICH)!r}, '--device', '*']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
