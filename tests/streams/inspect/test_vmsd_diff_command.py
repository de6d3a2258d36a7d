"""``migpool vmsd diff`` as a user and a CI job see it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from migpool.wire.vmdesc import find
from tests.support.commandline import here
from tests.support.other_streams import RICH, other, other_path


def dump(version: int, minimum: int, *fields: str, subsections: tuple[str, ...] = ()) -> dict[str, object]:
    """A -dump-vmstate document of one device whose fields are u32."""
    described = {
        "vmsd_name": "dev",
        "version_id": version,
        "minimum_version_id": minimum,
        "Fields": [{"field": name, "version_id": 0, "field_exists": False, "size": 4} for name in fields],
        "Subsections": [
            {"vmsd_name": f"dev/{name}", "version_id": 1, "minimum_version_id": 1, "Fields": []}
            for name in subsections
        ],
    }  # fmt: skip
    return {"dev": {"Name": "dev", "version_id": version, "minimum_version_id": minimum, "Description": described}}


@pytest.fixture
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("dumps")
    return folder / "old.json", folder / "new.json"


def written(pair: tuple[Path, Path], old: object, new: object) -> tuple[str, str]:
    for path, document in zip(pair, (old, new), strict=True):
        path.write_text(json.dumps(document))
    return str(pair[0]), str(pair[1])


@pytest.mark.parametrize(
    ("old", "new", "forward", "backward"),
    [
        (dump(1, 1, "a"), dump(1, 1, "a"), 0, 0),
        (dump(1, 1, "a"), dump(2, 1, "a"), 0, 1),
        (dump(1, 1, "a"), dump(2, 2, "a"), 1, 1),
        (dump(1, 1, "a"), dump(1, 1, "a", "b"), 1, 1),
        (dump(1, 1, "a", "b"), dump(1, 1, "b", "a"), 1, 1),
        (dump(1, 1, "a"), dump(1, 1, "a", subsections=("s",)), 0, 3),
        (dump(1, 1, "a"), {**dump(1, 1, "a"), "more": dump(1, 1, "x")["dev"]}, 0, 3),
        (dump(1, 1, "a", subsections=("s",)), dump(1, 1, "a", "b"), 1, 1),
    ],
)
def test_known_pairs_have_known_exit_codes(
    pair: tuple[Path, Path], old: object, new: object, forward: int, backward: int
) -> None:
    files = written(pair, old, new)
    strict = {0: 0, 1: 1, 3: 1}
    worst = max(forward, backward, key=(0, 3, 1).index)
    for direction, code in (("forward", forward), ("backward", backward), ("both", worst)):
        assert here("vmsd", "diff", *files, "--direction", direction).code == code
        assert here("vmsd", "diff", *files, "--direction", direction, "--strict").code == strict[code]
    assert here("vmsd", "diff", *files).code == forward


UNSEEN_OF_DUMPS = [
    "which devices a machine has, and in which slots",
    "memory",
    "values of fields, and what devices check of them",
]


def test_each_change_is_a_line_with_its_direction_and_reason(pair: tuple[Path, Path]) -> None:
    ended = here("vmsd", "diff", *written(pair, dump(1, 1, "a"), dump(2, 1, "a", subsections=("s",))))
    assert ended.out.splitlines() == [
        "forward (A into B): loads as far as descriptions tell; backward (B into A): breaks; "
        "2 differences, 1 that breaks, 0 of which one cannot tell",
        "breaks backward: dev: the source writes version 2, the destination reads up to 1",
        "loads: dev, subsection dev/s: the source does not send this subsection; it may be missing",
        *(f"not looked at: {sentence}" for sentence in UNSEEN_OF_DUMPS),
    ]


def test_the_document_says_what_the_lines_say(pair: tuple[Path, Path]) -> None:
    files = written(pair, dump(1, 1, "a"), dump(2, 1, "a"))
    document = json.loads(here("vmsd", "diff", *files, "--direction", "both", "--json").out)
    assert document == {
        "schema": 2,
        "a": files[0],
        "b": files[1],
        "direction": "both",
        "strict": False,
        "compatible": False,
        "forward": "loads",
        "backward": "breaks",
        "changes": [
            {
                "path": "dev",
                "forward": "loads",
                "backward": "breaks",
                "reason": "the source writes version 2, the destination reads up to 1",
            }
        ],
        "not_looked_at": UNSEEN_OF_DUMPS,
    }


def test_dumps_for_other_machine_types_are_compared_with_a_remark(pair: tuple[Path, Path]) -> None:
    old, new = ({"vmschkmachine": {"Name": name}, **dump(1, 1, "a")} for name in ("pc-q35-9.2", "pc-q35-10.0"))
    ended = here("vmsd", "diff", *written(pair, old, new))
    assert ended.code == 0
    assert "\nnot looked at: what differs between machine types: the files were written with pc-q35" in ended.out


def test_streams_compressed_streams_and_their_json_are_compared(pair: tuple[Path, Path]) -> None:
    text = bytes(find(other("i440fx-2.4"))[1])
    pair[0].write_bytes(text)
    pair[1].write_bytes(gzip.compress(other("i440fx-2.4")))
    assert here("vmsd", "diff", str(pair[0]), str(pair[1]), "--direction", "both", "--strict").code == 0
    assert here("vmsd", "diff", str(RICH), str(RICH)).code == 0
    ended = here("vmsd", "diff", str(other_path("i440fx-2.4")), str(RICH))
    assert ended.code == 1
    assert (
        "breaks both ways: 0000:00:01.3/piix4_pm" in ended.out or "breaks forward: 0000:00:01.3/piix4_pm" in ended.out
    )


def test_files_that_cannot_be_compared_are_wrong_usage(pair: tuple[Path, Path]) -> None:
    files = written(pair, dump(1, 1, "a"), "x")
    assert here("vmsd", "diff", *files).code == 2
    mixed = here("vmsd", "diff", files[0], str(RICH))
    assert mixed.code == 2
    assert "compare two streams, or two files that -dump-vmstate wrote" in mixed.err
    assert here("vmsd", "diff", files[0]).code == 2
    assert here("vmsd", "diff", *files, "--machine", "q35").code == 2
    assert "cannot be read" in here("vmsd", "diff", files[0], f"{files[1]}.none").err
    assert here("vmsd", "diff", *files, "--direction", "up").code == 2
