"""A stand-in for DNS with names that a test sets."""

import contextlib
import socket
import struct
import threading

A, AAAA = 1, 28


class StubDNS:
    """A DNS server for the names that a test sets (RFC 1035).

    Attributes:
        names: IPv4 and IPv6 addresses by name.
        asked: (name, record type) of each question.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.asked: list[tuple[str, int]] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                question, client = self.socket.recvfrom(512)
                self.socket.sendto(self._answer(question), client)

    def _answer(self, question: bytes) -> bytes:
        labels, at = [], 12
        while length := question[at]:
            labels.append(question[at + 1 : at + 1 + length].decode())
            at += length + 1
        name, (kind,) = ".".join(labels), struct.unpack(">H", question[at + 1 : at + 3])
        self.asked.append((name, kind))
        found = [address for address in self.names.get(name, []) if (":" in address) == (kind == AAAA)]
        code = 0 if name in self.names else 3
        records = b"".join(
            b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data
            for data in (socket.inet_pton(socket.AF_INET6 if kind == AAAA else socket.AF_INET, x) for x in found)
        )
        head = question[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(found), 0, 0)
        return head + question[12 : at + 5] + records
