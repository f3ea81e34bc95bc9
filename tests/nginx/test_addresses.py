"""Access by address: allowed and denied networks, an admin's networks, and whose X-Forwarded-For is trusted."""

from collections.abc import Callable

import pytest

from api.core.tiers import Tier
from tests.nginx.edge import Edge
from tests.nginx.stub_api import wait_for
from tests.nginx.tiers import document, new_user
from tests.vectors.make_tokens import CLAIMS

BLOB = "b" * 32
MakeEdge = Callable[..., Edge]
PROXY = {"SLUICE_TRUSTED_PROXIES": "127.0.0.0/8 10.0.0.0/8"}


def every_way(edge: Edge, **headers: str) -> list[int]:
    """The statuses of a call, a download, its HEAD and a part, if access is allowed."""
    edge.store(BLOB, b"content")
    folder = edge.storage / "parts" / CLAIMS["part"]["upload"]
    folder.mkdir(exist_ok=True)
    link, part = f"/d/{edge.token('link', file=BLOB)}/x", f"/p/{edge.token('part', size=3)}"
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return [
        edge.ask("GET", "/api/v1/files", headers={**edge.bearer(), **given}).status,
        edge.ask("POST", "/api/v1/sessions", headers=given, body=b"{}").status,
        edge.ask("GET", link, headers=given).status,
        edge.ask("HEAD", link, headers=given).status,
        {201: 200, 204: 200}.get(put := edge.ask("PUT", part, headers=given, body=b"abc").status, put),
        edge.ask("GET", "/healthz", headers=given).status,
    ]


OPEN = [200, 200, 200, 200, 200, 200]
CLOSED = [403] * 6


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"SLUICE_DENY_NETWORKS": "127.0.0.0/8"}, CLOSED),
        ({"SLUICE_DENY_NETWORKS": "10.0.0.0/8 2001:db8::/32"}, OPEN),
        ({"SLUICE_ALLOW_NETWORKS": "127.0.0.1"}, OPEN),
        ({"SLUICE_ALLOW_NETWORKS": "10.0.0.0/8"}, CLOSED),
        ({"SLUICE_ALLOW_NETWORKS": "127.0.0.0/8", "SLUICE_DENY_NETWORKS": "127.0.0.1"}, CLOSED),
        # in both lists: denied, even if the allowed network is smaller
        ({"SLUICE_ALLOW_NETWORKS": "127.0.0.1", "SLUICE_DENY_NETWORKS": "127.0.0.0/8"}, CLOSED),
    ],
)
def test_networks_are_allowed_and_denied(make_edge: MakeEdge, rules: dict[str, str], expected: list[int]) -> None:
    edge = make_edge(api=False, **rules)
    edge.api.start()
    wait_for(lambda: len(edge.api.feed_asked) >= 2, "revocations")
    assert every_way(edge) == expected


def test_a_refusal_looks_like_all_others_and_comes_before_the_token(make_edge: MakeEdge) -> None:
    edge = make_edge(api=False, SLUICE_DENY_NETWORKS="127.0.0.0/8")
    for path in ("/d/nonsense/x", "/p/nonsense", "/api/v1/files", "/metrics", "/readyz", "/healthz"):
        reply = edge.get(path)
        assert (reply.status, reply.code) == (403, "FORBIDDEN")
    assert edge.get("/").status == 404


def test_an_admins_token_is_one_in_its_networks_only(make_edge: MakeEdge) -> None:
    edge = make_edge(SLUICE_ADMIN_NETWORKS="10.0.0.0/8", **PROXY)
    admin, user = edge.bearer(role="admin"), edge.bearer()
    outside, inside = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "10.9.8.7"}
    # 10.0.0.0/8 is trusted as well, so the address before it counts
    assert edge.ask("GET", "/api/v1/transfers", headers={**admin, **inside}).status == 200
    reply = edge.ask("GET", "/api/v1/transfers", headers={**admin, **outside})
    assert (reply.status, reply.code) == (403, "FORBIDDEN")
    assert edge.ask("GET", "/api/v1/files", headers={**user, **outside}).status == 200


def test_a_trusted_proxy_is_believed_and_its_proxies_too(make_edge: MakeEdge) -> None:
    edge = make_edge(SLUICE_DENY_NETWORKS="192.0.2.0/24", **PROXY)
    assert every_way(edge, X_Forwarded_For="192.0.2.1") == CLOSED
    assert every_way(edge, X_Forwarded_For="192.0.2.1, 10.0.0.9") == CLOSED
    # addresses to the left of an untrusted one were written by that client
    assert every_way(edge, X_Forwarded_For="192.0.2.1, 198.51.100.7, 10.0.0.9") == OPEN
    edge.api.seen.clear()
    reply = edge.ask("GET", "/api/v1/files", headers={**edge.bearer(), "X-Forwarded-For": "192.0.2.1, 198.51.100.7"})
    seen = edge.api.seen[-1]
    assert seen.header("X-Real-IP") == seen.header("X-Forwarded-For") == ["198.51.100.7"]
    assert edge.log_line(reply.headers["X-Request-Id"])["remote_addr"] == "198.51.100.7"


def test_no_other_sender_is_believed(edge: Edge, make_edge: MakeEdge) -> None:
    edge.ask(
        "GET", "/api/v1/files", headers={**edge.bearer(), "X-Forwarded-For": "192.0.2.1", "X-Real-IP": "192.0.2.1"}
    )
    seen = edge.api.seen[-1]
    assert seen.header("X-Real-IP") == seen.header("X-Forwarded-For") == ["127.0.0.1"]
    closed = make_edge(SLUICE_TRUSTED_PROXIES="10.0.0.0/8", SLUICE_METRICS_NETWORKS="192.0.2.0/24")
    assert closed.get("/metrics", X_Forwarded_For="192.0.2.1").status == 403


@pytest.mark.parametrize(
    "value", ["", "x", "192.0.2.1.5", "::::", "192.0.2.1:99999, y", "a" * 3000, "127.0.0.1, 127.0.0.1"]
)
def test_what_is_no_address_changes_nothing(make_edge: MakeEdge, value: str) -> None:
    edge = make_edge(**PROXY)
    edge.ask("GET", "/api/v1/files", headers={**edge.bearer(), "X-Forwarded-For": value})
    seen = edge.api.seen[-1]
    assert seen.header("X-Real-IP") in (["127.0.0.1"], ["192.0.2.1"])


def test_the_edges_own_questions_have_no_address_to_refuse(make_edge: MakeEdge) -> None:
    """A paced download sends a request to the inner server by a socket."""
    rules = {"SLUICE_ALLOW_NETWORKS": "127.0.0.1", "SLUICE_DENY_NETWORKS": "10.0.0.0/8"}
    edge = make_edge(tiers=document(slow=Tier(rate=2**20)), SLUICE_CONTENT_HOST="content.example", **rules)
    edge.store(BLOB, b"content")
    path = f"/d/{edge.token('link', file=BLOB, **new_user('slow'))}/x"
    reply = edge.get(path, Host="content.example")
    assert (reply.status, reply.body) == (200, b"content")


@pytest.mark.parametrize(
    ("addresses", "is_one"),
    [
        ([f"2001:db8::{n:x}" for n in range(1, 9)], True),
        ([f"2001:db8:0:{n:x}::1" for n in range(1, 9)], False),
        # an IPv6 socket that also accepts IPv4 shows its clients in this form
        ([f"::ffff:10.0.0.{n}" for n in range(10, 18)], False),
        ([f"10.0.1.{n}" for n in range(10, 18)], False),
    ],
    ids=["one /64", "several /64", "IPv4 in IPv6", "IPv4"],
)
def test_of_ipv6_the_64_is_one_address(make_edge: MakeEdge, addresses: list[str], is_one: bool) -> None:
    edge = make_edge(tiers=document(signup=(0.001, 3)), SLUICE_TRUSTED_PROXIES="127.0.0.0/8", SLUICE_ADDRESS_RATE="1")
    calls = [edge.get("/api/v1/files", X_Forwarded_For=address, **edge.bearer()).status for address in addresses]
    assert (429 in calls) == is_one
    posts = [
        edge.ask("POST", "/api/v1/users", headers={"X-Forwarded-For": address}, body=b"{}").status
        for address in addresses
    ]
    assert (429 in posts) == is_one
