"""A target that is no longer valid is requested again, once, while the download waits."""

import uuid
from collections.abc import Callable

import pytest

from tests.nginx import stub_storage
from tests.nginx.edge import Edge
from tests.nginx.proxied import CONTENT, EVIL, SIZE, download
from tests.nginx.stub_api import Answer as APIAnswer
from tests.nginx.stub_api import wait_for
from tests.nginx.stub_storage import Answer, Request, StubStorage, ranged

MakeEdge = Callable[..., Edge]


class TestATargetThatNoLongerHolds:
    """The storage accepts only the signature "new"."""

    @pytest.fixture(autouse=True)
    def rotate(self, storage: StubStorage) -> None:
        def handle(request: Request) -> Answer:
            if not request.target.endswith("=new"):
                return Answer(self.status, {"X-Evil": EVIL}, EVIL.encode())
            return ranged(CONTENT)(request)

        self.status = 403
        storage.handle = handle

    @pytest.fixture
    def old(self, edge: Edge, storage: StubStorage) -> str:
        """A blob whose cached target is outdated."""
        blob = uuid.uuid4().hex
        edge.aim(blob, size=SIZE, uri=storage.url(signature="old"), storage="s3")
        assert download(edge, blob, "HEAD").status == 200
        wait_for(lambda: download(edge, blob, "HEAD").status == 200, "target")
        return blob

    def turn(self, edge: Edge, storage: StubStorage, blob: str) -> None:
        edge.aim(blob, size=SIZE, uri=storage.url(signature="new"), storage="s3")
        edge.api.targets_asked.clear()
        storage.seen.clear()

    @pytest.mark.parametrize("status", [400, 403, 404, 410, 500, 503])
    @pytest.mark.parametrize("wanted", ["", "bytes=5-9"])
    def test_is_requested_again_and_no_client_notices(
        self, edge: Edge, storage: StubStorage, old: str, status: int, wanted: str
    ) -> None:
        self.status = status
        self.turn(edge, storage, old)
        reply = download(edge, old, **({"Range": wanted} if wanted else {}))
        assert (reply.status, reply.body) == ((206, CONTENT[5:10]) if wanted else (200, CONTENT))
        assert reply.headers["Content-Type"] == "text/x-thing"
        assert reply.headers["Content-Disposition"] == "attachment; filename=\"n\"; filename*=UTF-8''n"
        assert len(reply.headers.get_all("ETag", [])) == 1
        assert reply.headers["Cache-Control"] == "private, no-cache"
        assert "X-Evil" not in reply.headers
        assert edge.api.targets_asked.count(old) == 1
        assert len(storage.seen) == 2
        # The new target is cached. A worker that has not heard of it may try the old one for up to a second.

        def all_new() -> bool:
            storage.seen.clear()
            assert download(edge, old).body == CONTENT
            return [seen.target[-3:] for seen in storage.seen] == ["new"]

        wait_for(all_new, "download by the new target only", 2)

    def test_for_a_bearer_token_too(self, edge: Edge, storage: StubStorage, old: str) -> None:
        self.turn(edge, storage, old)
        redirect = {"X-Accel-Redirect": f"/_link/{edge.token('link', file=old, type='a/b')}/x"}
        edge.api.answer = lambda seen: APIAnswer(200, redirect, b"{}")
        reply = edge.ask("GET", "/api/v1/files/1/content", headers=edge.bearer())
        assert (reply.status, reply.body, reply.headers["Content-Type"]) == (200, CONTENT, "a/b")

    def test_is_asked_for_until_it_is_the_same(self, edge: Edge, storage: StubStorage, old: str) -> None:
        edge.aim(old, size=SIZE, uri=storage.url(signature="other"), storage="s3")
        edge.api.targets_asked.clear()
        reply = download(edge, old)
        assert (reply.status, reply.code) == (503, "STORAGE_UNAVAILABLE")
        # The second time the API had no other one.
        assert edge.api.targets_asked.count(old) == 2
        assert [seen.target.rpartition("=")[2] for seen in storage.seen] == ["old", "other"]

    def test_that_is_still_the_same_is_not_tried_again(self, edge: Edge, storage: StubStorage, old: str) -> None:
        reply = download(edge, old)
        assert (reply.status, reply.code) == (503, "STORAGE_UNAVAILABLE")
        assert len(storage.seen) == 1

    @pytest.mark.parametrize(("status", "code"), [(404, "FILE_NOT_FOUND"), (410, "FILE_CORRUPT")])
    def test_because_the_blob_is_gone(self, edge: Edge, storage: StubStorage, old: str, status: int, code: str) -> None:
        edge.api.targets[old] = APIAnswer(status, body=b'{"error":{"code":"X"}}')
        reply = download(edge, old)
        assert (reply.status, reply.code) == (status, code)

    def test_while_the_api_is_away(self, make_edge: MakeEdge, storage: StubStorage) -> None:
        edge, blob = make_edge(SLUICE_REVOCATION_LAG="60"), uuid.uuid4().hex
        edge.aim(blob, size=SIZE, uri=storage.url(signature="old"), storage="s3")
        assert download(edge, blob, "HEAD").status == 200
        edge.api.stop()
        reply = download(edge, blob)
        assert (reply.status, reply.code) == (503, "API_UNAVAILABLE")

    def test_with_another_replica(self, edge: Edge, storage: StubStorage, old: str) -> None:
        """The first target's storage is down; the API names one on another storage."""
        with stub_storage.running() as away:
            blob = uuid.uuid4().hex
            edge.aim(blob, size=SIZE, uri=away.url(), storage="s3")
            assert download(edge, blob, "HEAD").status == 200
        edge.aim(blob, size=SIZE, uri=storage.url(signature="new"), storage="oss")
        assert download(edge, blob).body == CONTENT
        assert storage.seen[-1].header("X-Oss-Range-Behavior") == "standard"
