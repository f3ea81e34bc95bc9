"""Many more subjects than there is space for: memory does not grow, no request is refused for it, and limits hold."""

import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import pytest

from api.core.tiers import Tier
from tests.nginx.edge import Edge
from tests.nginx.stub_api import wait_for
from tests.nginx.test_pace import children
from tests.nginx.tiers import document

BLOB = "b" * 32
CONTENT = b"x" * 1000
CROWD = 4000


def cramped(text: str) -> str:
    """For snippets/lua.conf: space for a few hundred subjects."""
    changed = re.sub(
        r"^lua_shared_dict (clocks|holds|quotas|usage) \d+m;", r"lua_shared_dict \1 64k;", text, flags=re.M
    )
    assert changed.count(" 64k;") >= 5
    return changed


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    tiers = document(few=Tier(api=(0.01, 2), download=(0.01, 2), daily=10_000_000))
    edge = Edge(tmp_path_factory.mktemp("crowded"), tiers=tiers, change={"snippets/lua.conf": cramped})
    edge.store(BLOB, CONTENT)
    yield edge
    edge.stop()


def statuses(edge: Edge, purpose: str, subjects: list[dict[str, Any]]) -> list[int]:
    """One download of each, over a few kept connections."""

    def ask(some: list[dict[str, Any]]) -> list[int]:
        connection = HTTPConnection("127.0.0.1", edge.port, timeout=30)
        found = []
        for subject in some:
            token = edge.token(purpose, **{"file": BLOB, "jti": uuid.uuid4().hex[:16], **subject})
            connection.request("GET", f"/d/{token}/n")
            response = connection.getresponse()
            response.read()
            found.append(response.status)
        connection.close()
        return found

    with ThreadPoolExecutor(4) as pool:
        return [status for found in pool.map(ask, [subjects[n::4] for n in range(4)]) for status in found]


@pytest.mark.parametrize("tier", ["default", "few"])
def test_of_users(crowded: Edge, tier: str) -> None:
    crowd = [{"sub": uuid.uuid4().hex, "tier": tier} for _ in range(CROWD)]
    assert set(statuses(crowded, "link", crowd)) == {200}
    sent = wait_for(
        lambda: sum(crowded.api.moved("user", user["sub"])[0] > 0 for user in crowd[:: CROWD // 50]) == 50 and "all",
        "reports of them",
        30,
    )
    assert sent == "all"


MILLION = """
    location = /crowd {
        content_by_lua_block {
            local gcra, holds = require("sluice.limits.gcra"), require("sluice.limits.holds")
            local usage = require("sluice.limits.usage")
            local limit, refused, first = gcra.limit(0.001, 5), 0, tonumber(ngx.var.arg_first)
            for n = first, first + 49999 do
                local account = "user:" .. string.format("%032x", n)
                if gcra.take("d:" .. account, limit) or holds.take(account, 1) ~= 1 then
                    refused = refused + 1
                end
                holds.give(account, 1)
                usage.add(account, 1, 0)
            end
            local waits = 0
            for _ = 1, 7 do
                waits = waits + (gcra.take("d:after " .. first, limit) and 1 or 0)
            end
            ngx.say(refused, " ", waits)
        }
    }
    location = /_error {"""


def test_a_million_users_at_the_sizes_in_use(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge(
        tiers=document(), change={"gateway.conf": lambda text: text.replace("    location = /_error {", MILLION, 1)}
    )
    edge.store(BLOB, CONTENT)
    assert edge.process
    before = max(map(memory, children(edge.process.pid)))
    for first in range(0, 1_000_000, 50_000):
        assert edge.ask("GET", f"/crowd?first={first}", seconds=60).body == b"0 2\n"
    assert max(map(memory, children(edge.process.pid))) < before + 200 * 1024**2
    assert statuses(edge, "link", [{"tier": "default"}]) == [200]


def memory(pid: int) -> int:
    """Private memory of a process; memory shared by all workers counts twice in one of them."""
    with open(f"/proc/{pid}/status") as file:
        return int(re.findall(r"RssAnon:\s+(\d+)", file.read())[0]) * 1024


def test_and_a_limit_still_holds(crowded: Edge) -> None:
    user = {"sub": uuid.uuid4().hex, "tier": "few", "jti": uuid.uuid4().hex}
    assert [statuses(crowded, "link", [user])[0] for _ in range(4)] == [200, 200, 429, 429]
