"""Pages in a large file are found by processes that map it: it is shown as if it was read, whatever happens to them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

MADE = """
import json, os, random, signal, sys, tempfile, warnings
from pathlib import Path

warnings.simplefilter("error")  # of a fork beside threads
from migpool.streams.envelope.opening import open_path
from migpool.streams.inspect import mapping, reading, scouts
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.ram import RamBlock, block_list, pages, ram_section_end
from migpool.wire.sections import Kind, SectionHead, head_bytes
from migpool.wire.stream import eof, header

PAGE = 4096
path = Path(tempfile.mkdtemp(dir=sys.argv[1]), "stream")
mapping._WINDOW, scouts._PART, scouts._SHORT, reading._LARGE = 16 * PAGE, 256 << 10, 2, 1
os.sched_getaffinity = lambda process: range(3)

passed = []  # how many pages were passed over each time
count = scouts.Scouts.count
def counted(self, *arguments):
    passed.append(count(self, *arguments))
    return passed[-1]
scouts.Scouts.count = counted

def made(sections, page=PAGE):
    stream = [header(), configuration(Configuration("none", page_bits=page.bit_length() - 1))]
    blocks = block_list([RamBlock("a", 4096 * page), RamBlock("b", 100 * page)])
    stream += [head_bytes(SectionHead(Kind.START, 2, "ram", 0, 4)), blocks, ram_section_end(2)]
    for block, section in sections:
        stream.append(head_bytes(SectionHead(Kind.PART, 2, "", 0, 0)))
        stream += pages(block, [(number * page, content) for number, content in section])
        stream.append(ram_section_end(2))
    return b"".join(map(bytes, [*stream, eof()]))

def shown(stream):
    path.write_bytes(stream)
    with open_path(path) as opened:
        return reading.Inspection(opened).summary()

def alone():
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
"""

SAME = """
def drawn(draw):
    page = draw.choice([1024, PAGE, PAGE, PAGE, 16384])
    contents = [bytes(page), b"(" * page, draw.randbytes(page), None]
    sections = []
    for _ in range(draw.randint(1, 6)):
        block, most = draw.choice([("a", 4096), ("a", 4096), ("b", 100)])
        section = []
        for _ in range(draw.randint(1, 3)):
            first, long = draw.randrange(most), draw.choice([3, 40, 300])
            content = draw.choice(contents)
            section += [(n, content) for n in range(first, min(most, first + draw.randint(1, long)))]
        sections.append((block, section))
    stream = bytearray(made(sections, page))
    kind = draw.randrange(3)
    if kind == 1:
        del stream[draw.randrange(8, len(stream)):]
    elif kind == 2:
        for _ in range(4):
            at = draw.randrange(8, len(stream))
            near = at - at % (page + 8) + draw.randrange(60, 110)  # where words are
            stream[near if near < len(stream) else at] ^= 1 << draw.randrange(8)
    return bytes(stream)

differing = []
for number in range(int(sys.argv[2])):
    stream = drawn(random.Random(number))
    if repr(shown(stream)) != repr(reading.inspect_bytes(stream)):
        differing.append(number)
print(json.dumps([differing, sum(passed), alone()]))
"""

LONG = """
whole = made([("a", [(n, bytes(PAGE)) for n in range(first, first + 300)]) for first in (0, 300)])
differing = []
for bit in range(0, 64, 3):
    stream = bytearray(whole)
    stream[whole.index(bytes(PAGE)) + PAGE + (PAGE + 8) * (bit * 4 + 3) + bit // 8] ^= 1 << bit % 8
    if repr(shown(bytes(stream))) != repr(reading.inspect_bytes(bytes(stream))):
        differing.append(bit)
before = sum(passed)
shown(whole)
print(json.dumps([differing, sum(passed) - before]))
"""

CUT = """
path.write_bytes(made([("a", [(n, bytes(PAGE)) for n in range(1000)])]))
size, runs, wait, ended = path.stat().st_size, mapping.Mapping.runs, os.waitpid, []
def cut(self, *arguments):
    for run in runs(self, *arguments):
        os.truncate(path, size - 500 * PAGE)  # and who looks at what is missing is killed
        yield run
mapping.Mapping.runs = cut
def waited(*arguments):
    ended.append(wait(*arguments)[1])
os.waitpid = waited
os.sched_getaffinity = lambda process: range(1)
with open_path(path) as opened:
    found = reading.Inspection(opened).summary()
right = reading.inspect_bytes(path.read_bytes())
shown = [[one.blocks[0].normal, str(one.problem), one.size] for one in (found, right)]
print(json.dumps([sum(passed), [os.WTERMSIG(status) for status in ended], *shown]))
"""

LEFT = """
path.write_bytes(made([("a", [(n, bytes(PAGE)) for n in range(4096)])]))
said, saying = os.pipe()
sender = os.fork()
if not sender:
    with path.open("rb") as file:
        one = scouts.Scout(file.fileno(), path.stat().st_size, 0, path.stat().st_size, PAGE)
        os.write(saying, b"%d" % one._process)
        signal.pause()
scout = int(os.read(said, 100))
os.close(saying)
os.kill(sender, signal.SIGKILL)
os.waitpid(sender, 0)
print(json.dumps(os.read(said, 1) == b""))  # nobody has the other end any more
"""


def ran(program: str, *arguments: object) -> object:
    """What a program prints, in a process of its own that has a single thread."""
    command = [sys.executable, "-c", MADE + program, *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    found: object = json.loads(ended.stdout)
    return found


def test_any_stream_is_shown_as_if_it_was_read(tmp_path: Path) -> None:
    found = ran(SAME, tmp_path, 60)
    assert isinstance(found, list)
    differing, passed, alone = found
    assert differing == []
    assert passed > 5000
    assert alone is True, "a process is left over"


def test_a_word_that_is_wrong_in_any_bit_ends_what_is_passed_over(tmp_path: Path) -> None:
    found = ran(LONG, tmp_path)
    assert isinstance(found, list)
    differing, passed = found
    assert differing == []
    assert passed > 500


def test_a_file_that_is_cut_short_meanwhile_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    found = ran(CUT, tmp_path)
    assert isinstance(found, list)
    passed, ended, shown, right = found
    assert signal.SIGBUS in ended, "nobody looked at what is missing"
    assert 200 < passed < 500, "what was told before counts"
    assert shown == right


def test_a_scout_does_not_outlive_who_sent_it(tmp_path: Path) -> None:
    assert ran(LEFT, tmp_path) is True
