"""Which device's state grew between these two snapshots?

    python docs/examples/grown.py before.mig after.mig

Each is a file in any wrapping that ``migpool inspect`` takes off, or a recording's directory.
"""

import sys

from migpool import streams


def sizes(path: str) -> dict[str, int]:
    """Bytes of each device's state, all its sections together, and its packets on multifd channels."""
    found: dict[str, int] = {}
    with streams.open(path) as stream:
        beside = [device.section for device in stream.devices() if device.section.kind == "MULTIFD"]
        for section in [*stream.sections, *beside]:
            name = f"{section.idstr}#{section.instance_id}"
            found[name] = found.get(name, 0) + section.size
        if stream.summary.problem is not None:
            print(f"{path}: {stream.summary.problem}", file=sys.stderr)
    return found


before, after = (sizes(path) for path in sys.argv[1:3])
grown = {name: after.get(name, 0) - before.get(name, 0) for name in {**before, **after}}
for name, more in sorted(grown.items(), key=lambda item: -item[1]):
    if more:
        print(f"{more:+10} bytes  {name}")
