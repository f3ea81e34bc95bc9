"""How often a part of a proxied storage may be sent: RGW 16 never frees the first copy of a re-sent part."""

import uuid

import pytest

from tests.nginx.at_once import Held
from tests.nginx.edge import Edge
from tests.nginx.proxied import Part
from tests.nginx.stub_storage import Answer, Request, StubStorage


@pytest.fixture(autouse=True)
def stored(storage: StubStorage) -> None:
    storage.handle = lambda request: Answer(200, {"ETag": '"md5"'})


@pytest.fixture
def part(edge: Edge, storage: StubStorage) -> Part:
    return Part(edge, storage.url())


class TestTries:
    """At most five PUTs of one part reach the storage per hour."""

    def test_are_counted(self, edge: Edge, storage: StubStorage, part: Part) -> None:
        for _ in range(5):
            assert part.put().status == 200
        for _ in range(3):
            reply = part.put()
            assert reply.status == 429
            assert 3500 < int(reply.headers["Retry-After"]) <= 3600
            assert reply.code == "PART_TRIES_LIMITED"
        assert len(storage.seen) == 5
        assert Part(edge, storage.url()).put().status == 200

    def test_are_a_parts_not_a_urls(self, edge: Edge, storage: StubStorage) -> None:
        upload = uuid.uuid4().hex
        for n in range(7):
            reply = Part(edge, storage.url(signature=str(n)), upload=upload).put()
            assert reply.status == (200 if n < 5 else 429)
        assert Part(edge, storage.url(), upload=upload, part=4).put().status == 200

    def test_concurrent_ones_are_counted_too(self, edge: Edge, storage: StubStorage, part: Part) -> None:
        held = Held()

        def slow(request: Request) -> Answer:
            held.wait()
            return Answer(200, {"ETag": '"x"'})

        storage.handle = slow
        replies = held.ask(part.put, times=8, refused=3)
        assert sorted(reply.status for reply in replies) == [200] * 5 + [429] * 3

    @pytest.mark.parametrize("status", [400, 403, 404])
    def test_of_which_nothing_was_kept_do_not_count(self, storage: StubStorage, part: Part, status: int) -> None:
        storage.handle = lambda request: Answer(status)
        for _ in range(7):
            assert part.put().status in (400, 409, 503)
        storage.handle = lambda request: Answer(200)
        for _ in range(5):
            assert part.put().status == 200
        assert part.put().status == 429

    def test_that_never_arrived_do_not_count(self, edge: Edge) -> None:
        part = Part(edge, "http://127.0.0.1:9/key")
        for _ in range(8):
            assert part.put().status == 503

    def test_that_may_have_been_kept_count(self, storage: StubStorage, part: Part) -> None:
        storage.handle = lambda request: Answer(500)
        for _ in range(5):
            assert part.put().status == 503
        assert part.put().status == 429

    def test_that_are_refused_here_do_not_count(self, edge: Edge, storage: StubStorage, part: Part) -> None:
        for _ in range(8):
            assert part.put(b"x").status == 400
        assert part.put().status == 200
