"""Requests at once, held by whoever answers them until the others were refused."""

import threading
from collections.abc import Callable

from tests.nginx.edge import Reply
from tests.nginx.stub_api import wait_for


class Held:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._free = threading.Event()

    def wait(self) -> None:
        """For who answers: until the others were refused."""
        self._free.wait(10)

    def ask(self, ask: Callable[[], Reply], times: int, refused: int) -> list[Reply]:
        """Asks so many times at once; the replies, of which so many came while the others were held."""
        replies: list[Reply] = []
        threads = [threading.Thread(target=lambda: replies.append(ask())) for _ in range(times)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(replies) == refused, "refusals")
        self._free.set()
        for thread in threads:
            thread.join()
        return replies
