"""Our vfio-user servers in the test's own process, and clients of theirs that know nothing of ours."""

from __future__ import annotations

from pathlib import Path

from migpool.device import OptionValue
from migpool_plugins.vfio.vfiouser.port import ServedDevices
from tests.support.vfio.vfiouser_rig import RawClient


class Bench:
    """Servers in this process, and clients of theirs; all gone when the test ends."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.served: list[ServedDevices] = []
        self.clients: list[RawClient] = []
        self.told: list[str] = []

    def serve(self, name: str = "s", count: int = 1, seed: int = 1, /, **options: OptionValue) -> list[str]:
        served = ServedDevices(
            {"profile": "tiny", **options}, count, seed, str(self.directory / name), self.told.append
        )
        self.served.append(served)
        served.start()
        return served.paths

    def client(self, where: str, agree: bool = True, most: int = 1 << 20) -> RawClient:
        client = RawClient(where, agree, most)
        self.clients.append(client)
        return client

    def one(self, **options: OptionValue) -> RawClient:
        return self.client(self.serve(**options)[0])

    def stop(self) -> None:
        for client in self.clients:
            client.close()
        for served in self.served:
            served.stop()
