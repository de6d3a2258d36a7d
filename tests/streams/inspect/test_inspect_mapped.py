"""Pages in a file are counted through a mapping by a process of its own: as if it was read, whatever happens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

MADE = """
import json, os, random, sys, tempfile, warnings
from pathlib import Path

warnings.simplefilter("error")  # of a fork beside threads
from migpool.streams.inspect import mapping_process, reading
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.ram import RamBlock, block_list, pages, ram_section_end
from migpool.wire.sections import Kind, SectionHead, head_bytes
from migpool.wire.stream import eof, header

PAGE = 4096
path = Path(tempfile.mkdtemp(dir=sys.argv[1]), "stream")
noted, noting = os.pipe()  # the process that maps the file says there how many pages it has passed over
count = mapping_process.Mapping.count
def told(self, *arguments):
    found = count(self, *arguments)
    os.write(noting, b"%8d" % found)
    return found
mapping_process.Mapping.count = told
def asked():
    os.write(noting, b"%8d" % 0)
    said = os.read(noted, 1 << 16)
    return [int(said[at : at + 8]) for at in range(0, len(said) - 8, 8)]
mapping_process._SMALLEST = 16 * PAGE
reading.WORTH = 1

def made(sections):
    stream = [header(), configuration(Configuration("none"))]
    blocks = block_list([RamBlock("a", 4096 * PAGE)])
    stream += [head_bytes(SectionHead(Kind.START, 2, "ram", 0, 4)), blocks, ram_section_end(2)]
    for section in sections:
        stream.append(head_bytes(SectionHead(Kind.PART, 2, "", 0, 0)))
        stream += pages("a", [(number * PAGE, content) for number, content in section])
        stream.append(ram_section_end(2))
    return b"".join(map(bytes, [*stream, eof()]))

def shown(stream):
    path.write_bytes(stream)
    with reading_of(path) as opened:
        return reading.Inspection(opened).summary()

from migpool.streams.envelope.opening import open_path as reading_of
"""

SAME = """
draw, full = random.Random(1), bytes(PAGE)
whole = made([
    [(n, full) for n in range(300)],
    [(n, full if n % 7 else None) for n in range(300, 700)],
    [(n, full) for n in range(700, 764)] + [(n, full) for n in range(100)],
    [(4095, full)],
])
differing, passed = 0, []
for number in range(60):
    stream = bytearray(whole)
    if number % 3 == 1:
        del stream[draw.randrange(1, len(stream)):]
    elif number % 3 == 2:
        for _ in range(4):
            at = draw.randrange(len(stream))
            stream[at - at % 4104 + draw.randrange(60, 110)] ^= 1 << draw.randrange(8)
    if stream.startswith(b"QEVM"):
        differing += repr(shown(stream)) != repr(reading.inspect_bytes(bytes(stream)))
        passed += asked()
print(json.dumps([differing, len(passed), sum(passed)]))
"""

CUT = """
path.write_bytes(made([[(n, bytes(PAGE)) for n in range(1000)]]))
first = path.read_bytes().index(bytes(PAGE)) + PAGE
with path.open("rb") as file:
    mapping = mapping_process.Mapping(file.fileno(), path.stat().st_size)
    found = [mapping_process.asked_apart(lambda: mapping.count(first, PAGE, 500 * PAGE))]
    def cut():
        mapping.count(first, PAGE, 20 * PAGE)
        os.truncate(path, first + 100)
        return mapping.count(first + 4104 * 10, PAGE, 4096 * PAGE)
    found.append(mapping_process.asked_apart(cut))
    print(json.dumps(found))
"""


MEANWHILE = """
path.write_bytes(made([[(n, bytes(PAGE)) for n in range(1000)], [(n, bytes(PAGE)) for n in range(1000)]]))
size = path.stat().st_size
def cut(self, *arguments):
    found = told(self, *arguments)
    os.truncate(path, size - 1000 * PAGE)
    return found
mapping_process.Mapping.count = cut
with reading_of(path) as opened:
    found = reading.Inspection(opened).summary()
stream = path.read_bytes()
right = reading.inspect_bytes(stream)
shown = [[one.blocks[0].normal, str(one.problem), one.size] for one in (found, right)]
print(json.dumps([asked()[0], *shown]))
"""


def ran(program: str, folder: Path) -> list[object]:
    """What a program prints, in a process of its own that has a single thread."""
    command = [sys.executable, "-c", MADE + program, str(folder)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    found: list[object] = json.loads(ended.stdout)
    return found


def test_what_is_passed_over_is_counted_as_what_is_read(tmp_path: Path) -> None:
    differing, asked, passed = ran(SAME, tmp_path)
    assert differing == 0
    assert isinstance(asked, int)
    assert isinstance(passed, int)
    assert asked > 50
    assert passed > 10_000


def test_a_file_that_is_cut_short_under_the_mapping_ends_the_process_that_has_it_and_no_other(tmp_path: Path) -> None:
    assert ran(CUT, tmp_path) == [499, None]


def test_a_file_that_is_cut_short_meanwhile_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    passed, found, right = ran(MEANWHILE, tmp_path)
    assert isinstance(passed, int)
    assert 900 < passed < 1000, "all but what had been read before"
    assert found == right
