"""Wrong calls of an upload's protocol, and wrong content: a clear error, and the right call still works."""

import pytest

from tests.e2e.client import Client, Json, code
from tests.e2e.forge import flipped
from tests.e2e.gateway import Gateway
from tests.e2e.sources import PART, Source, Sources
from tests.e2e.wire import Wire
from tests.waiting import await_true

BAD_NAMES = ["", "   ", "a" * 256, "é" * 128, "../x", "..", ".", "a/b", "a\\b", "nul\0", "new\nline", "tab\t", "\x7f"]
BAD_NAMES += ["txt.\u202eexe", "\u2066isolate", "line\u2028separator", "\ud800"]


def finish(user: Client, upload: Json, source: Source) -> None:
    """After any refusal the right calls complete the upload, with the right bytes."""
    user.send(upload, source)
    assert user.holds(user.complete(upload), source)


@pytest.mark.parametrize("number", ["0", "3", "-1", "10001", "99999999999999999999", "x", "", "1.5", "١"])
def test_a_part_number_that_is_not_there_is_refused(user: Client, upload: Json, source: Source, number: str) -> None:
    parts = {"1": source.hashes[0], number: source.hashes[1]}
    response = user.call("POST", f"/uploads/{upload['id']}/parts", {"parts": parts})
    assert response.status_code == 400
    assert code(response)[1] in ("PART_NUMBER_INVALID", "BODY_INVALID")
    finish(user, upload, source)


def test_a_parts_hash_is_written_once(user: Client, upload: Json, source: Source) -> None:
    user.sign(upload, source, [1])
    response = user.call("POST", f"/uploads/{upload['id']}/parts", {"parts": {"1": "00" * 32, "2": source.hashes[1]}})
    assert code(response) == (409, "PART_HASH_CONFLICT")
    assert response.json()["error"]["parts"] == [1]
    finish(user, upload, source)


def test_complete_names_the_missing_parts(user: Client, sources: Sources) -> None:
    source = sources.make(6 * PART, "gaps")
    upload = user.create(source)
    assert code(user.call("POST", f"/uploads/{upload['id']}/complete")) == (409, "PARTS_MISSING")
    user.send(upload, source, [2, 5])
    response = user.call("POST", f"/uploads/{upload['id']}/complete")
    assert code(response) == (409, "PARTS_MISSING")
    assert response.json()["error"]["missing"] == [[1, 1], [3, 4], [6, 6]]
    user.send(upload, source, [1, 3, 4, 6])
    assert user.holds(user.complete(upload), source)


def test_complete_may_be_repeated_and_abort_may_not_follow(user: Client, upload: Json, source: Source) -> None:
    user.send(upload, source)
    file = user.complete(upload)
    assert user.complete(upload)["id"] == file["id"]
    assert code(user.call("DELETE", f"/uploads/{upload['id']}")) == (409, "UPLOAD_NOT_OPEN")
    assert user.holds(file, source)


def test_abort_may_be_repeated_and_complete_may_not_follow(user: Client, upload: Json, source: Source) -> None:
    user.send(upload, source)
    for _ in range(2):
        assert user.want(200, "DELETE", f"/uploads/{upload['id']}")["state"] == "aborted"
    response = user.call("POST", f"/uploads/{upload['id']}/complete")
    assert code(response) == (409, "UPLOAD_NOT_OPEN")
    again = user.create(source)
    assert again["id"] != upload["id"]
    finish(user, again, source)


def test_content_that_is_not_its_hash_is_named_and_can_be_sent_again(user: Client, sources: Sources) -> None:
    source = sources.make(4 * PART, "mismatch")
    upload = user.create(source)
    user.send(upload, source, [1, 3])
    parts = user.sign(upload, source, [2, 4])
    for number, part in parts.items():
        assert user.put(part, source.part(number)[:-1] + b"!").is_success
    response = user.call("POST", f"/uploads/{upload['id']}/complete")
    assert code(response) == (422, "PART_MISMATCH")
    assert response.json()["error"]["parts"] == [2, 4]
    again = user.create(source)
    assert again["id"] == upload["id"]
    assert (again["state"], again["missing"]) == ("uploading", [[2, 2], [4, 4]])
    user.send(again, source)
    assert sorted(user.sent[-2:]) == [2, 4]
    assert user.holds(user.complete(upload), source)


def test_five_completes_with_wrong_content_end_the_upload(gateway: Gateway, user: Client, sources: Sources) -> None:
    source = sources.make(1000, "five")
    upload = user.create(source)
    for _ in range(5):
        assert user.put(user.sign(upload, source, [1])[1], b"?" * 1000).is_success
        assert code(user.call("POST", f"/uploads/{upload['id']}/complete")) == (422, "PART_MISMATCH")
    assert user.want(200, "GET", f"/uploads/{upload['id']}")["state"] == "failed"
    assert user.call("POST", f"/uploads/{upload['id']}/complete").status_code in (409, 422)
    gateway.await_nothing_lost()
    again = user.create(source)
    assert again["id"] != upload["id"]
    finish(user, again, source)


def test_a_digest_that_the_parts_do_not_have_ends_the_upload(gateway: Gateway, user: Client, source: Source) -> None:
    upload = user.create(source, digest="ab" * 32)
    user.send(upload, source)
    for _ in range(2):
        assert code(user.call("POST", f"/uploads/{upload['id']}/complete")) == (422, "DIGEST_MISMATCH")
    assert user.want(200, "GET", f"/uploads/{upload['id']}")["state"] == "failed"
    assert user.create(source, digest="ab" * 32)["id"] != upload["id"], "never found again"
    await_true(lambda: upload["id"] not in gateway.part_folders())


@pytest.mark.parametrize("size", [-1, 2**63, 2**64, 1.5, "1", None, True])
def test_a_size_that_cannot_be_is_refused(user: Client, size: object) -> None:
    response = user.call("POST", "/uploads", {"name": "x", "size": size})
    assert response.status_code == 400
    assert code(response)[1] in ("SIZE_INVALID", "BODY_INVALID")


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_name_that_cannot_be_is_refused(user: Client, name: str) -> None:
    raw = '{"name":' + ascii_json(name) + ',"size":0}'
    response = user.call("POST", "/uploads", content=raw.encode(), headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert code(response)[1] in ("NAME_INVALID", "BODY_INVALID")


def ascii_json(text: str) -> str:
    """JSON that can also contain half a surrogate pair."""
    return '"' + "".join(f"\\u{unit:04x}" for unit in _utf16(text)) + '"'


def _utf16(text: str) -> list[int]:
    data = text.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[i : i + 2]) for i in range(0, len(data), 2)]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"name":"x","size":1}}', 400),
        (b"[]", 400),
        (b"null", 400),
        (b'{"name":"x","size":1,"colour":"red"}', 400),
        (b'{"name":"\xff","size":1}', 400),
        (b"[" * 10_000 + b"]" * 10_000, 400),
        (b'{"name":' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400),
        (b'{"x":' * 10_000 + b"1" + b"}" * 10_000, 400),
        (b'{"name":"' + b"x" * (2 * 1024 * 1024) + b'","size":1}', 413),
    ],
    ids=["empty", "open", "two", "list", "null", "member", "utf-8", "deep", "deep member", "deep objects", "2 MiB"],
)
def test_a_body_that_is_not_the_json_it_takes_is_refused(user: Client, body: bytes, status: int) -> None:
    response = user.call("POST", "/uploads", content=body, headers={"Content-Type": "application/json"})
    assert code(response) == (status, "BODY_INVALID" if status == 400 else "BODY_TOO_LARGE")
    assert user.call("GET", "/users/me").status_code == 200


@pytest.mark.parametrize(
    "query",
    ["limit=-1", "limit=0", "limit=1001", "limit=x", "limit=", "cursor=x", "cursor=", "order=size", "digest=abc"],
)
def test_a_parameter_that_cannot_be_is_refused(user: Client, query: str) -> None:
    response = user.call("GET", f"/files?{query}")
    assert response.status_code == 400
    assert code(response)[1] in ("PARAMETER_INVALID", "CURSOR_INVALID", "DIGEST_INVALID")


def test_a_cursor_is_its_lists_and_its_users_alone(user: Client, other: Client, sources: Sources) -> None:
    for number in range(2):
        user.upload(sources.make(10 + number), f"cursor {number}")
    cursor = user.want(200, "GET", "/files?limit=1")["next_cursor"]
    assert user.call("GET", f"/files?limit=1&cursor={cursor}").status_code == 200
    for client, query in (
        (user, f"order=name&cursor={cursor}"),
        (user, f"cursor={flipped(cursor, 3)}"),
        (user, f"cursor={flipped(cursor, len(cursor) - 4)}"),
        (other, f"cursor={cursor}"),
    ):
        assert code(client.call("GET", f"/files?{query}")) == (400, "CURSOR_INVALID"), query


def test_another_users_upload_is_not_there(user: Client, other: Client, upload: Json, source: Source) -> None:
    for method, path, body in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", "/parts", {"parts": source.hashes_of([1])}),
        ("POST", "/complete", None),
    ):
        response = other.call(method, f"/uploads/{upload['id']}{path}", body)
        assert code(response) == (404, "UPLOAD_NOT_FOUND")
    finish(user, upload, source)


def test_what_nginx_itself_refuses_has_the_one_shape(gateway: Gateway, user: Client) -> None:
    address = gateway.address
    assert code(user.fetch(f"{address}/nothing")) == (404, "NOT_FOUND")
    assert code(user.fetch(f"{address}/{'x' * 9000}")) == (414, "URI_TOO_LONG")
    assert code(user.fetch(address, X_Large="x" * 40_000)) == (431, "HEADERS_TOO_LARGE")
    assert code(user.call("GET", "/nothing")) == (404, "NOT_FOUND")
    assert code(user.call("PUT", "/files")) == (405, "METHOD_NOT_ALLOWED")
    with Wire(f"{address}/") as wire:
        assert wire.send(b"NONSENSE\r\n\r\n").answer() == (400, "BAD_REQUEST")
