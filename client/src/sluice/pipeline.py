"""The parts of one upload: hashed, signed and sent side by side.

Every thread takes the most urgent task: send a part that has its URL, ask for URLs, hash another part. So hashing
hides behind the network, and the network never waits for a hash that could have been made. Parts are read from the
disk (or the page cache) piece by piece: memory holds a small buffer for each thread, not parts.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from sluice.digest import Plan, hash_part
from sluice.engine import Engine
from sluice.errors import APIError
from sluice.models import SignedPart, Upload
from sluice.progress import Reporter
from sluice.race import Pace, shares_its_cores
from sluice.sender import UploadEnded, URLUsedUp, send_part
from sluice.source import Source

_AHEAD_BYTES = 256 * 1024**2
"""Hashed and not sent yet, at most: it should still be in the page cache when it is sent."""
_SIGN_SECONDS = 300.0
"""URLs are asked for what can be sent within this time; they live 15 minutes, and a part gets only a few."""
_MOST_URLS = 4
_MOST_SIGNED = 1000
_LONGEST_ETAG = 128
"""As a server takes it; storages answer some 34 characters."""

Job = Callable[[], None]


class _Needless(Exception):
    """The server has the content."""


class Pipeline:
    """See the module's docstring.

    Args:
        hashes: of the parts that were hashed before; the others are added.
        received: parts that the server has. Where ``verify`` is true their hashes are shown to it all the same: it
            refuses what is not the hash that they were sent with.
        ask: called once, when everything is hashed: whether the server has the content, so that nothing is to be sent.

    Attributes:
        etags: the ETags that the storage returned for the parts sent from here.
        needless: ``ask`` said so.
    """

    def __init__(
        self,
        engine: Engine,
        source: Source,
        plan: Plan,
        upload: Upload,
        hashes: dict[int, str],
        reporter: Reporter,
        received: Iterable[int] = (),
        verify: bool = False,
        ask: Callable[[], bool] | None = None,
    ) -> None:
        self._engine = engine
        self._source = source
        self._plan = plan
        self._upload = upload
        self._hashes = hashes
        self._reporter = reporter
        self._received = set(received)
        self._verify = verify
        self._ask = ask
        shares = shares_its_cores(engine.transport.url)
        self._pace = Pace(engine.settings.parallel, shares) if ask is not None else None
        self.needless = False
        self.etags: dict[int, str] = {}
        self._parallel = engine.settings.parallel
        self._changed = threading.Condition()
        self._ahead = max(2 * self._parallel, min(64, _AHEAD_BYTES // plan.part_size))
        self._begin(())

    def _begin(self, numbers: Iterable[int]) -> None:
        self._unhashed: deque[int] = deque()
        self._unsigned: deque[int] = deque()
        self._signed: deque[tuple[int, SignedPart]] = deque()
        self._open: set[int] = set(numbers)
        self._urls: dict[int, int] = {}
        self._hashing = self._sending = 0
        self._signing = False
        self._error: BaseException | None = None

    def run(
        self, numbers: Iterable[int], signed: Mapping[int, SignedPart] | None = None, *, again: bool = False
    ) -> None:
        """Brings parts to the server.

        Args:
            signed: URLs that are at hand already, of parts whose hashes are known.
            again: the server misses parts that it seemed to have.

        Raises:
            UploadEnded: the upload takes no parts any more.
            APIError, NetworkError, FileChanged, Cancelled: the parts cannot be sent.
        """
        self._begin(numbers)
        if again:
            self._received.clear()
        for number in sorted(self._open):
            if signed and number in signed:
                self._signed.append((number, signed[number]))
            elif number in self._hashes:
                self._unsigned.append(number)
            else:
                self._unhashed.append(number)
        if self._ask is not None and not self._unhashed:
            self._decide(self._ask)
        begun, before = time.monotonic(), self._reporter.now.moved
        count = min(self._parallel, len(self._open)) + min(self._engine.settings.hashers, len(self._unhashed))
        if count == 1:
            self._work()  # a small file needs no separate threads
        else:
            self._work_side_by_side(count)
        if self._error is not None:
            raise self._error
        self._engine.note_speed(self._reporter.now.moved - before, time.monotonic() - begun)

    def _work_side_by_side(self, count: int) -> None:
        threads = [threading.Thread(target=self._work, name="part", daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException as ex:  # Ctrl-C comes to the thread that waits
            self._fail(ex)
            raise

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except _Needless:
                return
            except BaseException as ex:
                if self.needless:
                    return  # what becomes of a part does not matter any more
                self._fail(ex)

    def _fail(self, ex: BaseException) -> None:
        with self._changed:
            self._error = self._error or ex
            self._changed.notify_all()

    def _next(self) -> Job | None:
        """The most urgent thing to do; None at the end."""
        with self._changed:
            while self._open and self._error is None and not self.needless:
                senders = self._parallel if self._pace is None else self._pace.senders
                if self._signed and self._sending < senders:
                    self._sending += 1
                    number, signed = self._signed.popleft()
                    return lambda: self._send(number, signed)
                if self._unsigned and not self._signing and self._sending < senders and self._worth_signing():
                    self._signing = True
                    batch = [self._unsigned.popleft() for _ in range(min(len(self._unsigned), self._most_signed()))]
                    return lambda: self._sign(batch)
                waiting = len(self._unsigned) + len(self._signed) + self._hashing
                # until it is known whether the file has to be sent, all of it is hashed as fast as possible
                is_due = self._pace is not None or waiting < self._ahead
                if self._unhashed and self._hashing < self._engine.settings.hashers and is_due:
                    self._hashing += 1
                    unhashed = self._unhashed.popleft()
                    return lambda: self._hash(unhashed)
                self._changed.wait()
            return None

    def _worth_signing(self) -> bool:
        """True if senders would be idle without more URLs. Otherwise URLs are requested for a few parts at a time."""
        if not self._signed:
            return True
        return len(self._signed) < self._parallel <= len(self._unsigned)

    def _most_signed(self) -> int:
        speed = self._engine.network_speed
        if speed is None:
            return max(self._parallel, 1)
        return max(self._parallel, min(_MOST_SIGNED, int(speed * _SIGN_SECONDS / self._plan.part_size)))

    def _hash(self, number: int) -> None:
        offset, length = self._plan.part(number)
        self._hashes[number] = hash_part(self._source, offset, length, self._engine.check)
        self._reporter.hashed(length)
        if self._ask is not None and len(self._hashes) == self._plan.part_count:
            self._decide(self._ask)
        with self._changed:
            self._hashing -= 1
            if self._pace is not None:
                self._pace.hashed(length)
            if number in self._received and not self._verify:
                self._open.discard(number)
            else:
                self._unsigned.append(number)
            self._changed.notify_all()

    def _decide(self, ask: Callable[[], bool]) -> None:
        """Asks whether the server has it all; if not, everything is for sending from here on."""
        self._ask = None
        needless = ask()
        with self._changed:
            self.needless, self._pace = needless, None
            self._changed.notify_all()

    def _check(self) -> None:
        """Raises what ends the sending of a part in the middle of it."""
        self._engine.check()
        if self.needless:
            raise _Needless

    def _sign(self, batch: list[int]) -> None:
        if self._upload.found and len(batch) > 1:
            self._look_again()
        try:
            signed = self._engine.calls.sign(self._upload, {number: self._hashes[number] for number in batch})
        except APIError as ex:
            if ex.code in ("UPLOAD_NOT_OPEN", "UPLOAD_NOT_FOUND"):
                raise UploadEnded from ex
            raise
        with self._changed:
            self._signing = False
            for number in batch:
                # the server leaves out what its storage has
                if number in self._received or number not in signed:
                    self._open.discard(number)
                    if number not in self._received:
                        self._reporter.kept(self._plan.part(number)[1])
                else:
                    self._signed.append((number, signed[number]))
            self._changed.notify_all()

    def _look_again(self) -> None:
        """Another machine may send the same upload: parts that it has sent need not be sent again."""
        upload = self._engine.calls.upload(self._upload.id)
        if upload.state not in ("proving", "uploading"):
            raise UploadEnded
        for number in set(upload.received) - self._received:
            if number in self._open and not any(number == waiting for waiting, _ in self._signed):
                self._received.add(number)
                self._reporter.kept(self._plan.part(number)[1])

    def _send(self, number: int, signed: SignedPart) -> None:
        done = False
        try:
            with self._engine.slots:
                place, sha256 = self._plan.part(number), self._hashes[number]
                etag = send_part(self._engine, self._source, place, sha256, signed, self._reporter, self._check)
            done = True
            if etag and len(etag) <= _LONGEST_ETAG:
                self.etags[number] = etag
        except URLUsedUp as ex:
            self._urls[number] = self._urls.get(number, 1) + 1
            if self._urls[number] > _MOST_URLS:
                raise ex.__cause__ or ex from None
        self._source.check_unchanged()
        with self._changed:
            self._sending -= 1
            if done:
                self._open.discard(number)
            else:
                self._unsigned.appendleft(number)
            self._changed.notify_all()
