"""Directories with certificates: good ones, and one for each way in which they can be wrong."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

from migpool.transport.authority import new_authority

__all__ = ["Certificates"]


class Certificates:
    """Made once, below a directory.

    Attributes:
        good: both ends trust each other.
        stranger: those of another authority.
        old: expired yesterday.
        client_of_stranger, client_old: good, but for the source's own certificate.
        trusts_old: good for a destination, which trusts the authority of ``client_old``.
    """

    def __init__(self, directory: Path) -> None:
        now = datetime.datetime.now(datetime.UTC)
        self.good, self.stranger, self.old = (directory / name for name in ("good", "stranger", "old"))
        new_authority(self.good, ["named.example"], 1)
        new_authority(self.stranger, [], 1)
        new_authority(self.old, [], 1, now - datetime.timedelta(days=2))
        self.client_of_stranger = self._mixed(directory / "client-of-stranger", self.stranger)
        self.client_old = self._mixed(directory / "client-old", self.old)
        self.trusts_old = self._mixed(directory / "trusts-old", self.old, "ca-cert.pem")

    def _mixed(self, directory: Path, other: Path, *names: str) -> Path:
        shutil.copytree(self.good, directory)
        for name in names or ("client-cert.pem", "client-key.pem"):
            shutil.copy(other / name, directory / name)
        return directory
