"""One end of migpool's migration: ``python -m benchmarks.ram.side SIDE SIZE CHANNELS CONTROL MODEL TO MEMORY TLS``.

The destination prints its address. The source prints a line when its memory is filled, and reads the address from its
standard input. Both end with a line of JSON. MEMORY is "resident" or "fresh": whether the destination's pages are there
before the migration. TLS is a directory with certificates, or empty.
"""

from __future__ import annotations

import json
import sys
import time

from benchmarks.ram.idle import IdleMemory
from migpool.core.machine import Machine
from migpool.migration.destination import Destination
from migpool.migration.report import peak_rss
from migpool.migration.settings import Settings
from migpool.migration.source import Source
from migpool.precopy.rounds import Round
from migpool.scenario.model_syntax import parse_model
from migpool.transport.address import Address


def main() -> None:
    side, size, channels, control, model = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
    settings = Settings(channels=channels, congestion=control, tls=sys.argv[8])
    resident = side == "destination" and sys.argv[7] == "resident"
    memory = IdleMemory(size, filled=side == "source", resident=resident)
    before = peak_rss()
    machine = Machine("idle", [memory])
    rounds: list[Round] = []
    account: dict[str, object] = {}
    if side == "source":
        part = parse_model(model).part("source")
        _say("ready")
        address = Address.parse(sys.stdin.readline().strip())
        begun = time.process_time()
        report = Source(machine, settings, part.scheduler(), workers=part.workers, progress=rounds.append).run(address)
        account["cpu"] = time.process_time() - begun
        # What QEMU counts: from the first page to the machine that runs there, without the set-up.
        account["seconds"] = sum(each.seconds for each in rounds) + (report.running - report.stopped) / 1e9
        account["extra"] = peak_rss() - before
    else:
        part = parse_model(model).part("destination")
        receiving = Destination(machine, settings, part.scheduler(), workers=part.workers, listening=_say)
        begun = time.process_time()
        report = receiving.run(Address.parse(sys.argv[6]))
        account["cpu"] = time.process_time() - begun
        # Fresh memory comes into being as it arrives: what is more than that is the migration's.
        account["extra"] = peak_rss() - before - (0 if resident else size)
        account["whole"] = memory.whole()
    account["error"] = report.error
    sys.stdout.write(json.dumps(account) + "\n")


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
