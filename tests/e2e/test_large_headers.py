"""Requests whose size nginx accepts, and that the API's server must not refuse in HTML."""

from tests.e2e.client import Client, Json
from tests.e2e.sources import Source


def test_many_headers(user: Client, upload: Json, source: Source) -> None:
    user.send(upload, source)
    headers = {f"X-Header-{number}": "a" for number in range(300)}
    assert user.call("POST", f"/uploads/{upload['id']}/complete", headers=headers).status_code == 200


def test_a_long_header(user: Client) -> None:
    assert user.call("GET", "/users/me", headers={"X-Long": "a" * 8180}).status_code == 200


def test_a_long_query(user: Client) -> None:
    assert user.call("GET", "/files", params={"q": "a" * 7000}).status_code == 200


def test_a_long_path(user: Client) -> None:
    # nginx decodes "%ff" to a byte, and writes it as "%FF" in the path for the API
    assert user.call("GET", f"/files/{'%ff' * 1500}").status_code == 404


def test_headers_of_other_proxies_mean_nothing(user: Client) -> None:
    contradictory = {"X-Forwarded-Protocol": "ssl", "X-Forwarded-Ssl": "on"}
    assert user.call("GET", "/users/me", headers=contradictory).status_code == 200
