"""Concurrent requests, which the responder holds until the others were refused."""

import threading
from collections.abc import Callable

from tests.nginx.edge import Reply
from tests.nginx.stub_api import wait_for


class Held:
    """Concurrent requests, see the module's docstring."""

    def __init__(self) -> None:
        self._free = threading.Event()

    def wait(self) -> None:
        """Called by the responder. Waits until the others were refused."""
        self._free.wait(10)

    def ask(self, ask: Callable[[], Reply], times: int, refused: int) -> list[Reply]:
        """Sends requests concurrently. Returns the responses, after this many came while the others were held."""
        replies: list[Reply] = []
        threads = [threading.Thread(target=lambda: replies.append(ask())) for _ in range(times)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(replies) == refused, "refusals")
        self._free.set()
        for thread in threads:
            thread.join()
        return replies
