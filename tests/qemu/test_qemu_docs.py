"""What the pages have a reader say to QEMU, said to a real one: options, monitor commands, XML for libvirt."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.docs.blocks import BLOCKS, block, of_kind
from tests.docs.console import typed
from tests.qemu.qemuprocess import LIMIT, QemuProcess, qemu_here
from tests.support.commandline import here
from tests.support.pool_gates import until

pytestmark = pytest.mark.qemu

EXPLAIN = "docs/explain.md"
TINY = ("-machine", "none", "-nodefaults", "-display", "none")
"""The machine that stands in the place of the reader's."""


def qemu(directory: Path, *arguments: str) -> QemuProcess:
    """A QEMU with these arguments."""
    found = qemu_here()
    assert found is not None
    return QemuProcess([*found.command, *TINY, *arguments], directory / "qemu.err")


def enabled(process: QemuProcess) -> set[str]:
    rows = process.execute("trace-event-get-state", {"name": "vmstate_downtime*"})
    assert isinstance(rows, list)
    return {str(row["name"]) for row in rows if isinstance(row, dict) and row["state"] == "enabled"}


def said(process: QemuProcess, line: str) -> str:
    """What the human monitor answers."""
    return str(process.execute("human-monitor-command", {"command-line": line}))


def test_the_tracepoints_are_switched_on_as_shown(tmp_path: Path) -> None:
    command = json.loads(block(EXPLAIN, "json"))
    with qemu(tmp_path, "-msg", "timestamp=on", "-D", str(tmp_path / "log")) as process:
        assert enabled(process) == set()
        process.execute(command["execute"], command["arguments"])
        assert "vmstate_downtime_checkpoint" in enabled(process)


def test_what_virsh_hands_on_is_understood(tmp_path: Path) -> None:
    lines = [line for one in of_kind("console") for line in typed(one.text)]
    handed = [words[-1] for line in lines for words in line.commands if words[:2] == ["virsh", "qemu-monitor-command"]]
    assert [words.split()[0] for words in handed] == ["trace-event", "logfile"]
    with qemu(tmp_path, "-msg", "timestamp=on") as process:
        for words in handed:
            assert said(process, words.replace("/var/log/libvirt/qemu", str(tmp_path))) == ""
        assert "vmstate_downtime_checkpoint" in enabled(process)


def test_the_xml_for_libvirt_has_options_that_qemu_takes(tmp_path: Path) -> None:
    tree = ElementTree.fromstring(f"<domain xmlns:qemu='q'>{block(EXPLAIN, 'xml')}</domain>")
    words = [each.attrib["value"] for each in tree.iter() if each.tag.endswith("}arg")]
    words = [re.sub(r"/var/(log|lib)/libvirt/qemu", str(tmp_path), word) for word in words]
    with qemu(tmp_path, *words) as process:
        assert enabled(process) == set()
    assert (tmp_path / "NAME.trace").exists()


def shown() -> list[list[str]]:
    """Every command line of QEMU's whose machine is the reader's."""
    lines = [line for one in BLOCKS if one.kind == "console" for line in typed(one.text)]
    found = [words for line in lines for words in line.commands if words[0] == "qemu-system-x86_64"]
    return [words[words.index("...") + 1 :] for words in found if "..." in words]


@pytest.mark.parametrize("words", shown(), ids=shlex.join)
def test_qemu_starts_with_the_options_that_are_shown(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "-incoming" in words:
        with qemu(tmp_path) as source:
            source.execute("migrate", {"uri": "file:vm.mig"})
            until(lambda: source.migration().get("status") == "completed", LIMIT, 0.1)
    with qemu(tmp_path, *words) as process:
        # One that does not load what it is given ends, and answers no more.
        until(lambda: process.execute("query-status") != {"status": "inmigrate", "running": False}, LIMIT, 0.1)


def test_the_credentials_are_given_to_qemu_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert here("tls", "new", "pki", "--name", "127.0.0.1").code == 0
    text = block("docs/security.md", "console", "(qemu)")
    lines = [shlex.join(line.commands[0]) for line in typed(text) if line.prompt == "(qemu)"]
    assert [line.split()[0] for line in lines] == ["object_add", "migrate_set_parameter"]
    with qemu(tmp_path) as process:
        assert [said(process, line) for line in lines] == ["", ""]
        told = process.execute("query-migrate-parameters", {})
        assert isinstance(told, dict)
        assert told["tls-creds"] == "tls"
