"""Limits password attempts, so that guessing is slow and no stranger can lock an owner out of an account.

Attempts are counted before they are judged, so that concurrent attempts get no more tries than consecutive ones. A
successful attempt takes back what it counted. For an IPv6 address its /64 network counts: it belongs to one customer.

1. By network, whatever the account: 100 in 5 minutes.
2. By account and network: 10 in 5 minutes. No other network's failures count here.
3. By account, over all networks without a sign-in to it in the last 90 days: 50 in an hour. Beyond that each such
   network, now an IPv4 /24 or an IPv6 /48, has 3 tries per day.

So the owner is never refused at a network that the account knows, unless a stranger guesses from that same network; and
an owner who travels while strangers use up the third count still has 3 tries. Strangers get at most 50 * 24 + 3 * N
guesses a day from N networks: 1,203 from one address, 4,200 from 1,000. Within a network that the account knows it is
the second count alone, 2,880 a day.
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Final

from api.core import errors
from api.core.cache import Cache
from api.core.config import Config
from api.core.errors import Problem

_WINDOW: Final = 300
_HOUR: Final = 3600
_DAY: Final = 86_400

STRANGERS_AN_HOUR: Final = 50
"""Failed sign-ins to one account in an hour, from all networks that it does not know."""
TRIES_A_DAY: Final = 3
"""Sign-ins that a network has, once those are used up."""


def network(address: str, v4: int = 32, v6: int = 64) -> str:
    """The network of an address, which counts as one; what is no address stands for itself."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    length = v4 if found.version == 4 else v6
    return str(ipaddress.ip_network(f"{found}/{length}", strict=False).network_address)


def fingerprint(address: str) -> bytes:
    """The stored form of a network with a sign-in: 16 bytes of its hash."""
    return hashlib.sha256(b"network\0" + network(address).encode()).digest()[:16]


class Guesses:
    """Counts sign-ins, and a session's attempts to change its password; see the module's docstring."""

    def __init__(self, cache: Cache, config: Config) -> None:
        self._cache = cache
        self._config = config

    def _count(self, kind: str, subject: str, window: int, limit: int) -> None:
        count, seconds_left = self._cache.count(kind, subject, window)
        if count > limit:
            raise Problem(errors.SIGNIN_LIMITED, retry_after=seconds_left)

    def count_address(self, address: str) -> None:
        """Counts a sign-in from an address, before anything is looked up. Raises Problem SIGNIN_LIMITED."""
        self._count("signin-address", network(address), _WINDOW, self._config.signin_address_limit)

    def count(self, name: str, address: str, *, known: bool) -> None:
        """Counts a sign-in to an account.

        Args:
            name: of the account, which may not exist.
            known: whether the account knows the address's network.

        Raises:
            Problem: SIGNIN_LIMITED.
        """
        self._count("signin-pair", _pair(name, network(address)), _WINDOW, self._config.signin_account_limit)
        if not known and self._cache.count("signin-account", name, _HOUR)[0] > STRANGERS_AN_HOUR:
            self._count("signin-stranger", _pair(name, network(address, 24, 48)), _DAY, TRIES_A_DAY)

    def succeeded(self, name: str, address: str, *, known: bool) -> None:
        """Takes back the counts of a sign-in that was right, and of those before it from the same network."""
        self._cache.uncount("signin-address", network(address), _WINDOW)
        self._cache.clear("signin-pair", _pair(name, network(address)))
        if not known:
            self._cache.uncount("signin-account", name, _HOUR)
            self._cache.clear("signin-stranger", _pair(name, network(address, 24, 48)))

    def count_change(self, session_id: bytes) -> None:
        """Counts a session's attempt to change its password, so that a thief of the session cannot guess fast.

        The account's other sessions are not limited by this count.

        Raises:
            Problem: SIGNIN_LIMITED.
        """
        self._count("password", session_id.hex(), _WINDOW, self._config.signin_account_limit)

    def changed(self, session_id: bytes) -> None:
        """Takes that count back."""
        self._cache.clear("password", session_id.hex())


def _pair(name: str, network: str) -> str:
    return f"{name}\0{network}"
