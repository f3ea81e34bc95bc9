"""1 GiB of Ceph from the edge's own disk, beside static nginx: ``python -m loadtest.benchmarks.cached_ceph``.

The link is read three times before the clock starts, so that what is hot lies in the edge's cache as one file. Static
nginx sends the same file; it is read twice a round, to know its own spread.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from loadtest.benchmarks.client import Client
from loadtest.benchmarks.complete import finalize
from loadtest.benchmarks.content import GIB, Content
from loadtest.benchmarks.download_large import read
from loadtest.benchmarks.measure import Pairs, Sample, Spread
from loadtest.benchmarks.peer import Peer
from loadtest.benchmarks.s3 import put_all
from loadtest.benchmarks.stack import Stack

_ROUNDS = 7
_WARM = 3
"""Pieces come to the disk, are all found there, are copied into one file."""


def main() -> None:
    """Prints the row."""
    os.environ["OSD_GB"] = "10"
    with tempfile.TemporaryDirectory(prefix="sluice-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        settings = {"SLUICE_CACHE_STORAGES": "ceph"}
        with Stack(folder, "--storage", "ceph", settings=settings) as stack, Peer(stack, folder) as peer:
            client, content = Client(stack.port), Content(GIB, 1 << 40)
            upload = client.create(content, "large.bin", parts=content.hashes())
            put_all([(part["url"], part["headers"]) for part in upload["parts"].values()], content, 4)
            link = client.link(finalize(client, upload["id"]))
            stack.objects.mkdir(parents=True, exist_ok=True)
            with (stack.objects / "static").open("wb") as file:
                for number in range(1, content.part_count + 1):
                    file.writelines(content.part(number))
            (stack.objects / "static").chmod(0o644)
            static, again = peer.static_path("static"), list[Sample]()
            for _ in range(_WARM):
                read(stack.port, link, stack.edge)

            def plain() -> Sample:
                again.append(read(peer.port, static, peer.workers))
                return read(peer.port, static, peer.workers)

            pairs = Pairs.take(_ROUNDS, lambda: read(stack.port, link, stack.edge), plain)
            itself = Spread.of([a.speed / b.speed for a, b in zip(again[1:], pairs.peer, strict=True)])
            for what, spread in (("cached / static", pairs.ratio), ("static / itself", itself)):
                print(f"{what}: median {spread.median:.3f} ({spread.least:.3f} to {spread.most:.3f})")
            row = pairs.row("cached-ceph", "", "MB/s", "ms/GiB", 1e3)
            print(f"MB/s {row.ours.median:.0f}, static {row.peer.median if row.peer else 0:.0f}; ", end="")
            print(f"worker CPU {row.cpu_ours:.0f} ms/GiB, static {row.cpu_peer:.0f}")


if __name__ == "__main__":
    main()
