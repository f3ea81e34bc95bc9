"""Asks each running server regularly, in one thread per server, whether it still answers."""

import threading
import time

from scripts.stack.services import HANG_SECONDS, Service

ASK_EVERY = min(5.0, HANG_SECONDS / 6)
_TEND_EVERY = 2 * HANG_SECONDS
_MOST_PER_ASK = ASK_EVERY + 10.0


class Pulse:
    """The state of health of one running server.

    Attributes:
        answered: whether it has answered since `restarted`.
        silent: seconds without an answer. Time in which this thread could not ask (the machine was suspended or
            overloaded) is not counted.
        trouble: why the server cannot do all of its work, as text; empty if it can.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._starts = 0
        self._tend_at = 0.0
        self.answered = False
        self.silent = 0.0
        self.trouble = ""

    def start(self) -> None:
        """Ask in the background until this process ends."""
        threading.Thread(target=self._run, name=f"pulse {self._service.name}", daemon=True).start()

    def restarted(self) -> None:
        """Forget all results of the previous process."""
        self._starts += 1
        self.answered, self.silent = False, 0.0

    def _run(self) -> None:
        last = time.monotonic()
        while True:
            starts = self._starts
            answered = self._ask()
            now = time.monotonic()
            if starts == self._starts:
                self.answered |= answered
                self.silent = 0.0 if answered else self.silent + min(now - last, _MOST_PER_ASK)
            last = now
            if answered and now >= self._tend_at:
                self._tend_at = now + _TEND_EVERY
                self._service.tend()
            time.sleep(ASK_EVERY)

    def _ask(self) -> bool:
        try:
            answered = self._service.alive()
            self.trouble = self._service.trouble()
        except Exception:  # any error counts as no answer; this thread must keep running
            return False
        return answered
