"""Kept connections: reused, dropped if the other end has closed them, and retried if a server was too busy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from api.core.config import S3Config
from api.core.errors import CompleteDoubtful, ObjectNotFound, StorageUnavailable, UploadGone
from api.storage.kept import KeptConnections
from api.storage.s3.bucket import Address
from api.storage.s3.calls import Calls
from api.storage.s3.sigv4 import Credentials
from tests.nginx import stub_storage
from tests.nginx.stub_storage import Answer, StubStorage

OK = Answer(body=b"ok")
BUSY = Answer(503)
HANG_UP = Answer(0)
SETTINGS = S3Config(
    single_put_max=0,
    endpoint="http://127.0.0.1:1",
    public_endpoint="",
    bucket="b",
    access_key="a",
    secret_key="s",
    session_token="",
    region="us-east-1",
    virtual_hosted=False,
    via_edge=False,
)


@contextmanager
def scripted(*answers: Answer) -> Iterator[StubStorage]:
    """A server that gives one answer per request, in order."""
    given = iter(answers)
    with stub_storage.running() as server:
        server.handle = lambda request: next(given)
        yield server


@contextmanager
def serving(*answers: Answer) -> Iterator[tuple[StubStorage, KeptConnections]]:
    with scripted(*answers) as server:
        connections = KeptConnections(server.base, read_timeout=5)
        try:
            yield server, connections
        finally:
            connections.close()


def targets(server: StubStorage) -> list[str]:
    return [request.target for request in server.seen]


def test_a_connection_is_used_again() -> None:
    with serving(OK, OK, OK) as (server, connections):
        assert [connections.ask("GET", lambda: "/a", {}).body for _ in range(3)] == [b"ok"] * 3
        assert len(server.connections) == 1


def test_a_server_that_hangs_up_is_asked_again() -> None:
    with serving(OK, HANG_UP, OK) as (server, connections):
        connections.ask("GET", lambda: "/a", {})
        assert connections.ask("GET", lambda: "/b", {}).status == 200
        assert (len(server.connections), targets(server)) == (2, ["/a", "/b", "/b"])


def test_a_busy_server_is_asked_three_times_with_a_new_signature_each() -> None:
    signed = iter(["/1", "/2", "/3"])
    with serving(BUSY, BUSY, BUSY) as (server, connections):
        assert connections.ask("GET", lambda: next(signed), {}).status == 503
        assert targets(server) == ["/1", "/2", "/3"]


def test_nobody_there_is_unavailable_without_the_query() -> None:
    with pytest.raises(StorageUnavailable) as caught:
        KeptConnections("http://127.0.0.1:1").ask("GET", lambda: "/a?X-Amz-Signature=secret", {})
    assert "secret" not in str(caught.value)


@contextmanager
def calling(*answers: Answer) -> Iterator[tuple[StubStorage, Calls]]:
    with scripted(*answers) as server:
        calls = Calls(Address(SETTINGS, server.base), Credentials("a", "s", "us-east-1"), lambda: 1_700_000_000.0)
        try:
            yield server, calls
        finally:
            calls._connections.close()


COMPLETED = Answer(body=b"<CompleteMultipartUploadResult><ETag></ETag></CompleteMultipartUploadResult>")


@pytest.mark.parametrize(
    "answer",
    [
        *(Answer(status) for status in (301, 400, 403, 404, 408, 409, 500, 502, 503, 504)),
        *(Answer(400, body=b"<Error><Code>%s</Code></Error>" % code) for code in (b"InvalidArgument", b"NoSuchUpload")),
        Answer(500, body=b"<Error><Code>InternalError</Code></Error>"),
        Answer(body=b"  <Error><Code>InternalError</Code></Error>"),  # S3 may report an error after it has sent 200
        Answer(body=b""),
        Answer(body=b"<html>"),
        HANG_UP,
    ],
)
def test_a_complete_without_a_clean_answer_is_in_doubt_and_sent_once(answer: Answer) -> None:
    with calling(answer, COMPLETED, COMPLETED) as (server, calls):
        with pytest.raises(CompleteDoubtful):
            calls.complete("k", "u", {1: (5, '"e"')})
        assert len(server.seen) == 1


def test_a_complete_on_a_connection_that_died_meanwhile_is_not_sent_again() -> None:
    with calling(COMPLETED, HANG_UP, COMPLETED) as (server, calls):
        calls.complete("k", "u", {1: (5, '"e"')})
        with pytest.raises(CompleteDoubtful):
            calls.complete("k", "v", {1: (5, '"e"')})
        assert len(server.seen) == 2


@pytest.mark.parametrize("code", [b"InvalidPart", b"InvalidPartOrder", b"EntityTooSmall", b"MalformedXML"])
def test_a_complete_that_was_refused_is_not_in_doubt(code: bytes) -> None:
    refused = Answer(400, body=b"<Error><Code>%s</Code></Error>" % code)
    with calling(refused) as (_, calls), pytest.raises(StorageUnavailable, match=code.decode()) as caught:
        calls.complete("k", "u", {1: (5, '"e"')})
    assert not isinstance(caught.value, CompleteDoubtful)


@pytest.mark.parametrize("body", [b"<Error><Code>InternalError</Code></Error>", b"", b"<Other/>"])
def test_a_copy_counts_by_its_body(body: bytes) -> None:
    with calling(Answer(body=body)) as (_, calls), pytest.raises(StorageUnavailable):
        calls.copy("k", "new")


def test_an_upload_that_is_gone_is_so_by_either_name() -> None:
    for code in (b"NoSuchKey", b"NoSuchUpload"):
        refused = Answer(404, body=b"<Error><Code>%s</Code></Error>" % code)
        with calling(refused) as (_, calls), pytest.raises(UploadGone):
            calls.list_parts("k", "u")


def test_an_object_that_is_not_there() -> None:
    with calling(Answer(404)) as (_, calls), pytest.raises(ObjectNotFound):
        calls.head("k")


def test_lists_continue_where_they_were_cut() -> None:
    page = (
        b'<R xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>%s</IsTruncated>'
        b"<NextPartNumberMarker>%d</NextPartNumberMarker>"
        b"<Part><PartNumber>%d</PartNumber><ETag>&quot;e&quot;</ETag><Size>7</Size></Part></R>"
    )
    with calling(Answer(body=page % (b"true", 1, 1)), Answer(body=page % (b"false", 2, 2))) as (server, calls):
        assert calls.list_parts("k", "u") == {1: (7, '"e"'), 2: (7, '"e"')}
        first, second = targets(server)
        assert "part-number-marker=0&" in first
        assert "part-number-marker=1&" in second
