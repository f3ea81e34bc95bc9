"""The access log's lines, and that no log holds a token."""

import json
import uuid
from collections.abc import Callable

from tests.nginx.edge import Edge, Reply
from tests.nginx.stub_api import Answer, wait_for
from tests.vectors.make_tokens import CLAIMS

FIELDS = {
    "time", "request_id", "remote_addr", "method", "route", "path", "status", "bytes_sent", "request_length",
    "request_time", "upstream_time", "upstream_connect_time", "upstream_header_time", "upstream_status", "cache",
    "storage", "user",
}  # fmt: skip
SUB = CLAIMS["access"]["sub"]


def line(edge: Edge, reply: Reply) -> dict[str, object]:
    found = edge.log_line(reply.headers["X-Request-Id"])
    assert set(found) == FIELDS
    assert found["status"] == reply.status
    assert found["remote_addr"] == "127.0.0.1"
    return found


def test_every_route_has_its_name(edge: Edge) -> None:
    blob = uuid.uuid4().hex
    edge.store(blob, b"content")
    link = edge.token("link", file=blob)
    redirect = Answer(200, {"X-Accel-Redirect": f"/_link/{link}/x"})

    api = edge.ask("GET", "/api/v1/files?cursor=x", headers=edge.bearer())
    assert {"route": "api", "path": "/api/v1/files", "user": SUB, "method": "GET"}.items() <= line(edge, api).items()
    edge.api.answer = lambda seen: redirect
    content = edge.ask("GET", "/api/v1/files/1/content", headers=edge.bearer())
    assert content.body == b"content"
    edge.api.answer = lambda seen: Answer()
    for reply, route, user in (
        (edge.ask("GET", "/api/v1/files"), "api", ""),
        (edge.get("/healthz"), "health", ""),
        (edge.get(f"/d/{link}/x"), "link", SUB),
        (edge.get("/d/nonsense/x"), "link", ""),
        (edge.get(f"/d/{link}/x", Range="bytes=99-"), "link", SUB),
        (edge.ask("PUT", f"/p/{edge.token('part')}", body=b""), "part", SUB),
        (edge.get("/nothing"), "other", ""),
        (content, "content", SUB),
    ):
        found = line(edge, reply)
        assert (found["route"], found["user"]) == (route, user)
        if route != "api" and route != "content":
            assert found["path"] == ""


def test_no_log_holds_a_token(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge()
    blob, upload = uuid.uuid4().hex, CLAIMS["part"]["upload"]
    link, part, access = edge.token("link", file=blob), edge.token("part", size=3), edge.token("access")
    lost = edge.token("link", file=uuid.uuid4().hex)
    edge.aim(blob, size=3, uri="/gone")
    (edge.storage / "parts" / upload / str(CLAIMS["part"]["part"]) / "in the way").mkdir(parents=True)
    bearer = {"Authorization": f"Bearer {access}"}

    assert edge.get(f"/d/{link}/x").code == "STORAGE_UNAVAILABLE"
    assert edge.get(f"/d/{lost}/x").code == "FILE_NOT_FOUND"
    assert edge.ask("PUT", f"/p/{part}", body=b"abc").code == "STORAGE_UNAVAILABLE"
    assert edge.ask("PUT", f"/p/{part}", body=b"x" * 2**21).code == "LENGTH_MISMATCH"
    assert edge.ask("POST", "/api/v1/uploads", headers=bearer, body=b"x" * 2**20).status == 200
    assert edge.ask("POST", "/api/v1/uploads", headers=bearer, body=b"x" * 2**22).code == "BODY_TOO_LARGE"
    edge.api.answer = lambda seen: Answer(200, {"X-Accel-Redirect": f"/_link/{link}/x"})
    assert edge.ask("GET", "/api/v1/files/1/content", headers=bearer).code == "STORAGE_UNAVAILABLE"
    for path in (f"/{link}", f"//d/{link}/x", f"/d/{link}/a/b", f"/_link/{link}/x", f"/x/../d/{link}/x"):
        edge.raw(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    edge.raw(f"GET /d/{link}/x HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
    edge.raw(f"GET /d/{link}/x{'x' * 9000} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    edge.api.stop()
    assert edge.ask("GET", "/api/v1/files", headers=bearer).code == "API_UNAVAILABLE"
    assert edge.get(f"/d/{edge.token('link', file=uuid.uuid4().hex)}/x").code == "API_UNAVAILABLE"
    # Each worker writes its lines after at most a second.
    wait_for(lambda: edge.access_log.read_text().count("\n") >= 17, "lines in the access log")
    wait_for(lambda: f"could not give file {blob}" in edge.error_log.read_text(), "line in the error log")
    wait_for(lambda: f"could not take a part of upload {upload}" in edge.error_log.read_text(), "line in the error log")

    logs = edge.access_log.read_text() + edge.error_log.read_text()
    for token in (link, lost, part, access):
        for piece in token.split("."):
            if len(piece) > 20:
                assert piece not in logs


def test_repeats_are_counted_not_written_out(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge()
    blob = uuid.uuid4().hex
    edge.aim(blob, size=3, uri="/gone")
    for _ in range(100):
        assert edge.get(f"/d/{edge.token('link', file=blob)}/x").status == 503
    wait_for(lambda: "times)" in edge.error_log.read_text(), "count in the error log")
    assert len(edge.error_log.read_text().splitlines()) < 20


def test_a_path_of_any_bytes_leaves_a_line_of_json(edge: Edge) -> None:
    edge.ask("GET", "/api/v1/%ff%fe%01x", headers=edge.bearer())
    wait_for(lambda: b"/api/v1/??" in edge.access_log.read_bytes(), "line in the access log")
    for line in edge.access_log.read_bytes().splitlines():
        json.loads(line)  # accepts UTF-8 only
