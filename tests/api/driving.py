"""Makes every call that reaches the database, in each variant; ``gateway.statements`` records the statements."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from api.accounts import network_rows, revocation_rows
from api.accounts import rows as accounts
from api.blobs import replica_rows as replicas
from api.blobs import scrub_rows as scrubs
from api.core.errors import StorageUnavailable
from api.core.models import new_id
from api.db import deployment, times
from api.files import rows as db_files
from api.jobs import rows as jobs
from api.sweep import rows as listings
from api.uploads import finalize
from tests.api import driving_transfers
from tests.api.conftest import EDGE_KEY, Content, Gateway, User

EMPTY = Content(b"")


def drive(gateway: Gateway, user: User) -> None:
    """Every call, most of them by this user."""
    sessions(gateway, user)
    uploads(gateway, user)
    instant(gateway, user)
    merges(gateway, user)
    read_back(gateway, user)
    files(gateway, user)
    singles(gateway, user)
    doubted(gateway, user)
    background(gateway)
    rows_of_jobs(gateway)
    driving_transfers.drive(gateway, user)
    edge(gateway, user)
    mended(gateway)
    deployment.settle(gateway.db, "id", "0badcafe")
    accounts.any_user(gateway.db)
    name = gateway.user().name
    gateway.services.accounts.disable(name)
    gateway.services.accounts.enable(name)
    gateway.clock.turn(700_000)
    sign_in(gateway, user)
    scrubbed(gateway, user)
    rescued(gateway, user)
    swept(gateway, user)


def singles(gateway: Gateway, user: User) -> None:
    """Small uploads by one PUT, several per call: completed, and abandoned."""
    contents = [Content(f"drive singles {n}".encode()) for n in range(3)]
    gateway.storage.largest_single, gateway.storage._enforces = 1000, True
    body = [{"name": "s", "size": c.size, "digest": c.digest, "parts": c.hashes()} for c in contents]
    items = user.post("/uploads/batch", {"uploads": body}).json["items"]
    gateway.storage.largest_single, gateway.storage._enforces = 0, False
    ids = [item["upload"]["id"] for item in items]
    for content, upload_id in zip(contents[:2], ids, strict=False):
        ((key,),) = gateway.rows("SELECT object_key FROM upload WHERE id = UNHEX(%s)", upload_id)
        gateway.statements.pop()
        gateway.storage.objects[key] = content.data
    user.post("/uploads/batch/complete", {"ids": ids})
    user.call("DELETE", f"/uploads/{ids[2]}")


def doubted(gateway: Gateway, user: User) -> None:
    """An upload whose complete was cut off, and one with neither object nor parts left."""
    gateway.storage.doubtful = True
    for cut, lost in (("open", False), ("unmade", True)):
        content = Content(f"drive doubt {cut}".encode())
        upload = user.create(content)
        user.put(upload, content)
        gateway.storage.cut = cut
        user.complete(upload)
        gateway.storage.cut = ""
        if lost:
            gateway.storage.uploads.clear()
        gateway.work("finalize")
    gateway.storage.doubtful = False


def scrubbed(gateway: Gateway, user: User) -> None:
    """A replica that is scrubbed, healed and lost, and a corrupt blob."""
    db, now = gateway.db, gateway.clock()
    sign_in(gateway, user)
    file = user.upload(Content(b"drive scrub"))
    ((blob,),) = gateway.rows("SELECT blob_id FROM file WHERE id = UNHEX(%s)", file["id"])
    gateway.statements.pop()
    scrubs.oldest(db, "local", now)
    scrubs.waiting(db)
    fresh = scrubs.Healing("0badcafe/00/drive", blob, "", binds_hash=False)
    for end in (scrubs.swap, scrubs.give_up):
        found = scrubs.load(db, blob)
        assert found is not None
        begun = scrubs.healing(db, blob, "local", fresh, now)
        scrubs.set_opened(db, blob, "local", begun)
        scrubs.set_complete_stage(db, blob, "local", begun, 1)
        first = found.replicas[0]
        db.transaction(partial(end, blob_id=blob, begun=begun, now=now, **(
            {"damaged": first} if end is scrubs.swap else {"storage": "local", "keep_until": None}
        )))  # fmt: skip
    found = scrubs.load(db, blob)
    assert found is not None
    scrubs.set_checked(db, blob, found.replicas[0], now)
    scrubs.put_off(db, blob, now)
    scrubs.set_lost(db, blob, "local", now)
    scrubs.set_sha256(db, blob, b"s" * 32)
    assert db.transaction(partial(scrubs.set_corrupt, subject=found))


def rescued(gateway: Gateway, user: User) -> None:
    """A finished object whose multipart upload was left open."""
    file = user.upload(Content(b"drive rescue"))
    ((key,),) = gateway.rows(
        "SELECT r.object_key FROM file f JOIN replica r ON r.blob_id = f.blob_id WHERE f.id = UNHEX(%s)", file["id"]
    )
    gateway.statements.pop()
    gateway.storage.uploads[key.rpartition("/")[2]] = {}
    gateway.services.rescuer.run("local", lambda what, about: None, dry=False)
    gateway.storage.uploads.clear()


def swept(gateway: Gateway, user: User) -> None:
    """Sweeps on schedule, by hand, dry, and with unknown objects; after a day, and when the trash is old."""
    sweep = gateway.services.sweep
    for _ in range(2):
        sweep.run()
    stranger = f"{times.now(gateway.db):%y}{'0' * 30}"
    gateway.storage.uploads[stranger] = {}
    prefix = deployment.value(gateway.db, "id")
    gateway.storage.objects[f"{prefix}/00/{stranger}"] = b"x"
    gateway.storage.objects[f"{prefix}/00/{new_id().hex()}"] = b"x"
    lost = Content(b"lost")
    user.upload(lost)
    gateway.storage.objects = {key: data for key, data in gateway.storage.objects.items() if data != lost.data}
    gateway.db.execute("UPDATE file SET trashed_at = trashed_at - INTERVAL 40 DAY WHERE trashed_at > 0 LIMIT 9")
    gateway.statements.pop()
    for _ in range(3):
        sweep.by_hand(lambda kind, text: None, accept=True)
        gateway.clock.turn(90_000)
    sign_in(gateway, user)
    again = gateway.user()
    again.upload(Content(b"x"))
    sweep.by_hand(lambda kind, text: None, dry=True)
    sweep.missing()
    listings.sightings(gateway.db, "local", 10)


def sign_in(gateway: Gateway, user: User) -> dict[str, Any]:
    body = {"username": user.name, "password": user.password}
    session: dict[str, Any] = gateway.http.simulate_post("/api/v1/sessions", json=body).json
    user.session = session
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_rows, "MOST", 0)
        gateway.http.simulate_post("/api/v1/sessions", json=body, headers={"X-Real-IP": "10.1.1.1"})
    return session


def sessions(gateway: Gateway, user: User) -> None:
    def refresh(token: str) -> None:
        gateway.http.simulate_post("/api/v1/sessions/refresh", json={"refresh_token": token})

    token = sign_in(gateway, user)["refresh_token"]
    refresh(token)
    refresh(token)
    sign_in(gateway, user)
    user.call("PATCH", "/users/me", json={"current_password": user.password, "password": "the next one"})
    user.password = "the next one"
    sign_in(gateway, user)
    user.get("/users/me")
    user.call("DELETE", "/sessions/current")


def uploads(gateway: Gateway, user: User) -> None:
    content = Content.of_parts(2, "drive")
    user.create(EMPTY)
    upload = user.create(content, resume_key="k")
    user.create(content, resume_key="k")
    user.put(upload, content, [1])
    gateway.clock.turn(10)
    user.get(f"/uploads/{upload['id']}")
    user.complete(upload)
    user.put(upload, content)
    gateway.storage.uploads[upload["id"]][1] = b"x" * content.part_size
    user.complete(upload)
    user.put(upload, content)
    user.complete(upload)
    user.create(content, digest=content.digest)  # content that the user owns
    bad = user.create(content, "bad", digest="f" * 64)
    user.put(bad, content)
    user.complete(bad)
    aborted = user.post("/uploads", {"name": "aborted", "size": content.size}).json
    for count in (3, 2):
        user.call("PATCH", f"/uploads/{aborted['id']}", json={"size": count * 8 * 1024**2})
    user.call("DELETE", f"/uploads/{aborted['id']}")
    gateway.storage.uploads[aborted["id"]] = {}  # a part that a storage still holds because it was down
    for params in ({}, {"state": "done"}):
        page = user.get("/uploads", limit=1, **params).json
        user.get("/uploads", limit=1, cursor=page["next_cursor"], **params)
    gateway.storage._enforces = True
    told = user.create(content, "told")
    gateway.storage._enforces = False
    user.put(told, content)
    del gateway.storage.uploads[told["id"]][1]
    user.post(f"/uploads/{told['id']}/complete", {"etags": {"1": "a", "2": "b"}})
    user.call("DELETE", f"/uploads/{told['id']}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(gateway.config), "user_parts", 0)
        assert user.post("/uploads", {"name": "limited", "size": 1}).status_code == 429
    with pytest.MonkeyPatch.context() as patch:
        long = user.post("/uploads", {"name": "long", "size": 65 * 8 * 1024**2}).json
        user.post(f"/uploads/{long['id']}/parts", {"parts": {"1": "0" * 64}})
        patch.setattr(gateway.storage, "list_parts", lambda ref: dict.fromkeys(range(1, 66), 8 * 1024**2))
        assert user.complete(long).json["error"]["missing"] == [[2, 65]]
    with pytest.MonkeyPatch.context() as patch:
        gone = user.create(Content(b"gone"), "gone")
        user.put(gone, Content(b"gone"))
        del gateway.storage.uploads[gone["id"]]
        patch.setattr(gateway.storage, "list_parts", lambda ref: {1: 4})
        user.complete(gone)


def instant(gateway: Gateway, user: User) -> None:
    content, other = Content.of_parts(2, "drive instant"), gateway.user()
    user.upload(content, "instant")
    upload = other.create(content, digest=content.digest)
    upload = other.create(content, digest=content.digest)  # found again, with another nonce
    other.post(f"/uploads/{upload['id']}/proof", content.prove(upload["challenge"]))
    skipped = gateway.user()
    skipped.put(skipped.create(content, digest=content.digest), content)


def merges(gateway: Gateway, user: User) -> None:
    for broken in ("no", "lost", "corrupt", "without a replica"):
        content = Content(f"drive {broken}".encode())
        first = user.upload(content, broken)
        if broken == "lost":
            gateway.storage.objects.clear()
        if broken == "corrupt":
            gateway.rows(
                "UPDATE `blob` b JOIN file f ON f.blob_id = b.id SET b.state = 'corrupt' WHERE f.id = UNHEX(%s)",
                first["id"],
            )
            gateway.statements.pop()
        if broken == "without a replica":
            gateway.db.execute(
                "DELETE r FROM replica r JOIN file f ON f.blob_id = r.blob_id WHERE f.id = UNHEX(%s)", (first["id"],)
            )
            gateway.statements.pop()
        gateway.user().upload(content)


def read_back(gateway: Gateway, user: User) -> None:
    """Content that the storage does not compare: right, wrong, twice, and while the storage is down."""

    def take() -> None:
        gateway.work("verify")

    content, other = Content(b"read back"), gateway.user()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway.storage, "_compares", False)
        file = user.upload(content)
        other.upload(content)
        take()  # the second is merged into the first
        upload = user.create(Content(b"declared"))
        user.put(upload, Content(b"declared"))
        gateway.storage.uploads[upload["id"]][1] = b"and sent"
        user.complete(upload)
        take()
        user.upload(Content(b"away"))
        patch.setattr(gateway.storage, "open", _away)
        take()
    ((blob,),) = gateway.rows("SELECT blob_id FROM file WHERE id = UNHEX(%s)", file["id"])
    gateway.rows("UPDATE `blob` SET sha256 = NULL WHERE id = %s", blob)
    gateway.statements.pop()
    jobs.insert(gateway.db, "verify", blob, gateway.clock())
    take()
    db_files.any_on(gateway.db, "local")


def _away(*where: object) -> None:
    raise StorageUnavailable("away")


def files(gateway: Gateway, user: User) -> None:
    made = [user.create(EMPTY, f"drive {n}")["file"] for n in range(4)]
    for file in made[:2]:
        user.call("DELETE", f"/files/{file['id']}")
    user.post(f"/files/{made[1]['id']}/restore")
    user.call("DELETE", f"/files/{made[1]['id']}")
    path = f"/files/{made[3]['id']}"
    user.get(path)
    user.call("PATCH", path, json={"name": "drive renamed"})
    user.post(f"{path}/links")
    user.call("DELETE", f"{path}/links")
    user.get(f"{path}/content")
    for order in ("newest", "name"):
        for trashed in ("true", "false"):
            for more in ({}, {"q": "drive"}, {"digest": made[0]["digest"]}):
                params: dict[str, Any] = {"order": order, "trashed": trashed, "limit": 1} | more
                page = user.get("/files", **params).json
                assert user.get("/files", cursor=page["next_cursor"], **params).status_code == 200


def background(gateway: Gateway) -> None:
    user = gateway.user()
    content = Content.of_parts(2, "drive background")
    real: Callable[..., Any] = gateway.storage.complete

    def slow(*args: Any) -> Any:
        gateway.clock.turn(5)  # the lease is extended
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(gateway.config), "finalize_inline", 0)
        patch.setattr(finalize, "_EXTEND_EVERY", 0)
        patch.setattr(gateway.storage, "complete", slow)
        upload = user.create(content)
        for wrong in (1, 1, 1, 1, 0):
            user.put(upload, content)
            if wrong:
                gateway.storage.uploads[upload["id"]][1] = b"x" * content.part_size
            user.complete(upload)
            gateway.work("finalize")
        upload = user.create(Content(b"drive away"))
        user.put(upload, Content(b"drive away"))
        user.complete(upload)
        patch.setattr(gateway.storage, "complete", _away)
        gateway.work("finalize")


def rows_of_jobs(gateway: Gateway) -> None:
    """Statements of workers, the feeder and operators."""
    db, owner, subjects = gateway.db, b"o" * 16, [b"s" * 16, b"t" * 16]
    now = gateway.clock()
    jobs.insert_many(db, "drive", subjects, now)
    for _ in range(2):
        gateway.services.feeder.look()
    row = "drive", subjects[0], owner
    assert jobs.take(db, *row, now)
    for _ in range(2):
        assert jobs.keep(db, *row, now)  # the second call changes nothing
    assert jobs.save(db, *row, 1, None, now)
    jobs.release(db, *row, now)
    assert jobs.take(db, *row, now)
    jobs.fail(db, *row, ("WHY", "because"), now, None)
    jobs.counts(db, now)
    jobs.dead(db)
    for which in ((), ("drive",), ("drive", subjects[0])):
        jobs.retry(db, now, *which)
    jobs.set_enqueued(db, "drive", subjects, now)
    jobs.delete_many(db, subjects)
    assert not gateway.take("verify", b"nothing to do...")


def edge(gateway: Gateway, user: User) -> None:
    headers = {"X-Sluice-Edge": EDGE_KEY}
    ((file,),) = gateway.db.all("SELECT LOWER(HEX(id)) FROM file ORDER BY id DESC LIMIT 1")
    gateway.statements.pop()
    gateway.http.simulate_get(f"/internal/targets/{file}", headers=headers)
    gateway.http.simulate_get(
        f"/internal/sessions/{'0' * 32}", params={"user": user.id, "generation": 0}, headers=headers
    )
    gateway.http.simulate_get("/internal/revocations", headers=headers)
    report = {"edge": "0" * 32, "sequence": 1, "rows": [["user", user.id, "2026-01-01", 1, 1]]}
    gateway.http.simulate_post("/internal/usage", headers=headers, json=report | {"totals": [["user", user.id]]})
    gateway.http.simulate_get(f"/internal/usage/user/{user.id}", headers=headers)
    gateway.services.accounts.set_tier(user.name, "default")
    now = gateway.clock()
    revocation_rows.note(gateway.db, "session", b"over", 1, now, now)
    assert revocation_rows.prune(gateway.db, now + timedelta(seconds=1)) >= 1
    gateway.http.simulate_get("/readyz")
    gateway.http.simulate_get("/internal/metrics", headers=headers)


def mended(gateway: Gateway) -> None:
    """A replica that an edge could not read, and that is back later."""
    made = gateway.user().upload(Content(b"drive mended"))
    ((blob, key),) = gateway.db.all(
        "SELECT LOWER(HEX(f.blob_id)), r.object_key FROM file f JOIN replica r ON r.blob_id = f.blob_id "
        "WHERE f.id = UNHEX(%s)",
        (made["id"],),
    )
    gateway.statements.pop()
    content = gateway.storage.objects.pop(key)
    headers, params = {"X-Sluice-Edge": EDGE_KEY}, {"failed": "local", "reason": "missing"}
    gateway.http.simulate_get(f"/internal/targets/{made['id']}", headers=headers, params=params)
    for _ in range(2):
        gateway.services.runner.run("mend", bytes.fromhex(blob))
        gateway.clock.turn(3)
    replicas.lost(gateway.db, 10)
    gateway.storage.objects[key] = content
    gateway.http.simulate_get(f"/internal/targets/{made['id']}", headers=headers)
    gateway.services.runner.run("mend", bytes.fromhex(blob))
