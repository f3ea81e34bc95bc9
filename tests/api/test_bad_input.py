"""Every bad input, with its status and code. Nothing is lost and nothing created."""

from __future__ import annotations

import json
from typing import Any

import falcon.testing
import pytest

from api.http.adapter import MAX_BODY
from tests.api.conftest import Content, Gateway, User, error

DEEP = 10_000
CALLS = [
    ("POST", "/users"),
    ("POST", "/sessions"),
    ("POST", "/sessions/refresh"),
    ("PATCH", "/users/me"),
    ("POST", "/uploads"),
    ("POST", "/uploads/{upload}/parts"),
    ("POST", "/uploads/{upload}/proof"),
    ("PATCH", "/files/{file}"),
    ("POST", "/files/{file}/links"),
]
BODIES: dict[str, bytes] = {
    "broken": b'{"name": ',
    "cut in the middle": b'{"name": "a", "size": 1',
    "trailing": b'{"name": "a"} x',
    "not JSON": b"name=a&size=1",
    "an array": b"[]",
    "a string": b'"x"',
    "null": b"null",
    "single quotes": b"{'name': 'a'}",
    "NaN": b'{"size": NaN}',
    "not UTF-8": b'{"name": "\xff", "username": "\xff"}',
    "not UTF-8 in a key": b'{"\xff": 1}',
    "UTF-16": '{"name": "a"}'.encode("utf-16"),
    "a lone surrogate": b'{"username": "\\ud800", "name": "\\ud800x"}',
    "a NUL byte": b"\0",
    "a deep array": b"[" * DEEP + b"]" * DEEP,
    "a deep object": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep and broken": b"[" * DEEP,
    "deep in an unknown member": b'{"what": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep in members that are known": b'{"parts": '
    + b"[" * DEEP
    + b"]" * DEEP
    + b', "username": '
    + b"[" * DEEP
    + b"]" * DEEP
    + b"}",
    "an unknown member": b'{"unknown": 1}',
    "a number of 5,000 digits": b'{"size": ' + b"9" * 5000 + b"}",
}


@pytest.fixture
def paths(user: User) -> dict[str, str]:
    """An upload and a file to call."""
    return {"upload": user.create(Content(b"input"))["id"], "file": user.create(Content(b""))["file"]["id"]}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize(("method", "path"), CALLS)
def test_what_is_not_the_json_that_a_call_takes_is_refused(
    user: User, paths: dict[str, str], method: str, path: str, body: bytes
) -> None:
    error(user.call(method, path.format(**paths), body=body), 400, "BODY_INVALID")


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_a_body_over_2_mib_is_refused_and_one_of_2_mib_is_read(
    user: User, paths: dict[str, str], method: str, path: str
) -> None:
    url = path.format(**paths)
    error(user.call(method, url, body=b" " * (MAX_BODY + 1)), 413, "BODY_TOO_LARGE")
    assert user.call(method, url, body=b" " * (MAX_BODY - 2) + b"[]").json["error"]["code"] == "BODY_INVALID"


@pytest.mark.parametrize("length", ["x", "-1", "1e3", "１"])
def test_a_content_length_that_is_none_is_refused(gateway: Gateway, length: str) -> None:
    environ = falcon.testing.create_environ("/api/v1/sessions", method="POST", body="{}")
    environ["CONTENT_LENGTH"] = length.encode().decode("latin-1")  # Falcon's test client would not send it
    started = falcon.testing.StartResponseMock()
    (body,) = gateway.http.app(environ, started)
    assert started.status is not None
    assert started.status.startswith("400 ")
    assert json.loads(body)["error"]["code"] == "BODY_INVALID"


@pytest.mark.parametrize("length", [0, 1, 10])
def test_a_body_cut_in_the_middle_is_refused(gateway: Gateway, length: int) -> None:
    whole = b'{"username": "someone", "password": "password"}'
    environ = falcon.testing.create_environ("/api/v1/sessions", method="POST", body=whole[:length])
    environ["CONTENT_LENGTH"], environ["CONTENT_TYPE"] = str(len(whole)), "application/json"
    (body,) = gateway.http.app(environ, falcon.testing.StartResponseMock())
    assert json.loads(body)["error"]["code"] == "BODY_INVALID"


CREATE: dict[str, Any] = {"name": "a", "size": 1}
PROOF: dict[str, Any] = {"proof": "0" * 64, "parts": ["0" * 64]}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": None}, "BODY_INVALID"),
        ({"name": 1}, "BODY_INVALID"),
        ({"name": ["a"]}, "BODY_INVALID"),
        ({"name": ""}, "NAME_INVALID"),
        ({"name": "a" * 300}, "NAME_INVALID"),
        ({"name": "../x"}, "NAME_INVALID"),
        ({"name": "a\0b"}, "NAME_INVALID"),
        ({"name": "a\r\nb"}, "NAME_INVALID"),
        ({"name": "\u202egpj.exe"}, "NAME_INVALID"),
        ({"size": None}, "BODY_INVALID"),
        ({"size": "1"}, "BODY_INVALID"),
        ({"size": 1.5}, "BODY_INVALID"),
        ({"size": True}, "BODY_INVALID"),
        ({"size": -1}, "SIZE_INVALID"),
        ({"size": 5 * 1024**4 + 1}, "SIZE_INVALID"),
        ({"size": 2**63 - 1}, "SIZE_INVALID"),
        ({"size": 2**63}, "SIZE_INVALID"),
        ({"size": 2**64}, "SIZE_INVALID"),
        ({"size": -(2**63) - 1}, "SIZE_INVALID"),
        ({"digest": ""}, "DIGEST_INVALID"),
        ({"digest": "a" * 63}, "DIGEST_INVALID"),
        ({"digest": "a" * 65}, "DIGEST_INVALID"),
        ({"digest": "A" * 64}, "DIGEST_INVALID"),
        ({"digest": "g" * 64}, "DIGEST_INVALID"),
        ({"digest": " " * 64}, "DIGEST_INVALID"),
        ({"digest": 1}, "BODY_INVALID"),
        ({"resume_key": ""}, "BODY_INVALID"),
        ({"resume_key": "k" * 1025}, "BODY_INVALID"),
        ({"resume_key": 1}, "BODY_INVALID"),
        ({"folder_id": "0" * 32}, "FOLDER_NOT_FOUND"),
        ({"content_type": 1}, "BODY_INVALID"),
        ({"parts": {}}, "BODY_INVALID"),
        ({"parts": []}, "BODY_INVALID"),
        ({"parts": {"0": "0" * 64}}, "PART_NUMBER_INVALID"),
        ({"parts": {"2": "0" * 64}}, "PART_NUMBER_INVALID"),
        ({"parts": {"one": "0" * 64}}, "PART_NUMBER_INVALID"),
        ({"parts": {"1": "x"}}, "BODY_INVALID"),
        ({"storage": "s3"}, "BODY_INVALID"),
        ({"state": "done"}, "BODY_INVALID"),
        ({"user_id": "0" * 32}, "BODY_INVALID"),
    ],
)
def test_a_create_that_cannot_be_makes_nothing(user: User, change: dict[str, Any], code: str) -> None:
    status = 404 if code == "FOLDER_NOT_FOUND" else 400
    error(user.post("/uploads", CREATE | change), status, code)
    assert user.get("/uploads").json["items"] == []


@pytest.mark.parametrize("missing", ["name", "size"])
def test_a_create_needs_name_and_size(user: User, missing: str) -> None:
    error(user.post("/uploads", {key: value for key, value in CREATE.items() if key != missing}), 400, "BODY_INVALID")


@pytest.mark.parametrize("name", ["📦.bin", "a b", "'; DROP TABLE upload; --", "報告", "a" * 255])
def test_any_other_name_comes_back_as_it_was(user: User, name: str) -> None:
    upload = user.post("/uploads", CREATE | {"name": name})
    assert upload.status_code == 201
    assert user.get(f"/uploads/{upload.json['id']}").json["name"] == name


@pytest.mark.parametrize(
    "change",
    [
        {"proof": None},
        {"proof": "0" * 63},
        {"proof": "G" * 64},
        {"parts": []},
        {"parts": ["0" * 63]},
        {"parts": ["0" * 64] * 10_001},
        {"parts": {"1": "0" * 64}},
        {"parts": None},
        {"more": 1},
    ],
)
def test_a_proof_that_cannot_be_uses_no_challenge_up(user: User, change: dict[str, Any]) -> None:
    upload = user.post("/uploads", {"name": "a", "size": 2**30, "digest": "a" * 64}).json
    error(user.post(f"/uploads/{upload['id']}/proof", PROOF | change), 400, "BODY_INVALID")
    assert user.get(f"/uploads/{upload['id']}").json["challenge"] == upload["challenge"]


@pytest.mark.parametrize("upload_id", ["0" * 32, "F" * 32, "x", "..", "%00"])
@pytest.mark.parametrize(
    ("method", "call", "body"),
    [
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", "/complete", None),
        ("POST", "/proof", PROOF),
        ("POST", "/parts", {"parts": {"1": "0" * 64}}),
    ],
)
def test_an_upload_that_is_none_is_not_found(user: User, upload_id: str, method: str, call: str, body: object) -> None:
    answer = user.call(method, f"/uploads/{upload_id}{call}", json=body)
    error(answer, 404, "UPLOAD_NOT_FOUND")


class TestShape:
    """Every error has one shape, contains the request's id, and shows no internals."""

    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            ("GET", "/", 404, "NOT_FOUND"),
            ("GET", "/api/v1", 404, "NOT_FOUND"),
            ("GET", "/api/v1/nothing", 404, "NOT_FOUND"),
            ("GET", "/api/v1/files/%2e%2e/x", 404, "NOT_FOUND"),
            ("GET", "/api/v1/%ff", 404, "NOT_FOUND"),
            ("POST", "/", 404, "NOT_FOUND"),
            ("DELETE", "/api/v1/users", 401, "TOKEN_MISSING"),
            ("GET", "/api/v1/users/me", 401, "TOKEN_MISSING"),
            ("POST", "/healthz", 401, "TOKEN_MISSING"),
            ("POST", "/api/v1/sessions", 400, "BODY_INVALID"),
        ],
    )
    def test_without_a_token(self, gateway: Gateway, method: str, path: str, status: int, code: str) -> None:
        error(gateway.http.simulate_request(method, path), status, code)

    @pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "POST"])
    def test_a_method_that_is_not_taken_says_which_are(self, user: User, method: str) -> None:
        path = "/files" if method == "POST" else "/uploads"
        answer = user.call(method, path)
        error(answer, 405, "METHOD_NOT_ALLOWED")
        assert "GET" in answer.headers["allow"]

    def test_an_exception_shows_no_details(
        self, gateway: Gateway, user: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(*_: object) -> None:
            raise RuntimeError("a secret of the inside")

        monkeypatch.setattr(gateway.services.files._db, "one", broken)
        found = error(user.get(f"/files/{'0' * 32}"), 500, "INTERNAL_ERROR")
        assert set(found) == {"code", "message", "request_id"}
        assert "secret" not in json.dumps(found)
        assert "a secret of the inside" in caplog.text  # the text is in the log only

    def test_further_members_stand_beside_the_three(self, user: User) -> None:
        upload = user.create(Content(b"further"))
        found = error(user.complete(upload), 409, "PARTS_MISSING")
        assert set(found) == {"code", "message", "request_id", "missing"}


class TestRequestId:
    def ask(self, gateway: Gateway, **headers: str) -> falcon.testing.Result:
        return gateway.http.simulate_get("/healthz", headers={k.replace("_", "-"): v for k, v in headers.items()})

    def test_the_edges_id_is_kept(self, gateway: Gateway) -> None:
        given = "0123456789abcdef-ABC"
        assert self.ask(gateway, X_Request_Id=given).headers["x-request-id"] == given

    @pytest.mark.parametrize("given", ["", "a b", "x" * 65, "<script>", "é", "a\tb"])
    def test_what_is_no_id_is_replaced(self, gateway: Gateway, given: str) -> None:
        made = self.ask(gateway, X_Request_Id=given).headers["x-request-id"]
        assert len(made) == 32
        assert made != self.ask(gateway, X_Request_Id=given).headers["x-request-id"]


class TestAnswers:
    def test_no_answer_may_be_kept_by_a_cache(self, user: User) -> None:
        upload = user.create(Content(b"cached"))
        answers = [
            user.get("/uploads"),
            user.get(f"/uploads/{upload['id']}"),
            user.get("/files"),
            user.get("/users/me"),
            user.complete(upload),
            user.get("/nothing"),
        ]
        assert {answer.headers["cache-control"] for answer in answers} <= {"private, no-store", "no-store"}

    def test_health_is_the_process_alone(self, gateway: Gateway) -> None:
        answer = gateway.http.simulate_get("/healthz")
        assert (answer.status_code, answer.json) == (200, {"status": "ok"})

    def test_readiness_names_each_dependency(self, gateway: Gateway) -> None:
        answer = gateway.http.simulate_get("/readyz")
        assert answer.status_code == 200
        assert answer.json == {
            "status": "ok",
            "checks": {"database": "ok", "redis": "ok", "storage:local": "ok", "content": "ok"},
            "notes": {},
        }
