"""Uploads of real files: sizes at every boundary, any order, several machines, interrupted, expired."""

import hashlib
import random
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.client import Client, Json, code, numbers_of
from tests.e2e.gateway import Gateway
from tests.e2e.sources import MIB, PART, Sources
from tests.run.running import ROOT
from tests.waiting import await_true

SIZES = [0, 1, 4095, 65_537, PART - 1, PART, PART + 1, 2 * PART - 1, 2 * PART, 2 * PART + 1, 5 * PART + 12_345]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("digest", [True, False], ids=["digest", "no digest"])
def test_a_file_comes_back_byte_for_byte(user: Client, sources: Sources, size: int, digest: bool) -> None:
    source = sources.make(size, f"whole {digest}")
    file = user.upload(source, digest=digest)
    assert (file["name"], file["size"], file["state"]) == (source.path.name, size, "ready")
    assert file["digest"] == (source.digest if size else hashlib.sha256().hexdigest())
    assert file["sha256"] == source.sha256
    assert user.holds(file, source)
    assert user.want(200, "GET", f"/files/{file['id']}") == file


def test_an_empty_file_is_done_immediately_and_has_no_parts(user: Client, sources: Sources) -> None:
    upload = user.create(sources.make(0), "nothing", digest=False)
    assert upload["state"] == "done"
    assert (upload["part_count"], upload["missing"], upload["received"]) == (0, [], [])
    assert upload["file"]["name"] == "nothing"


def test_parts_come_in_any_order_concurrently_and_more_than_once(user: Client, sources: Sources) -> None:
    source = sources.make(6 * PART - 7, "shuffled")
    upload = user.create(source)
    order = [*source.numbers, 2, 5, 6, 6]
    random.Random(7).shuffle(order)
    user.send(upload, source, order, at_once=10)
    assert user.holds(user.complete(upload), source)


def test_create_with_part_hashes_gives_their_urls(user: Client, sources: Sources) -> None:
    source = sources.make(2 * PART + 1, "one trip")
    upload = user.create(source, digest=False, parts=source.hashes_of(source.numbers))
    for number in source.numbers:
        assert user.put(upload["parts"][str(number)], source.part(number)).is_success
    assert user.holds(user.complete(upload), source)


def test_progress_is_what_the_disk_holds(user: Client, sources: Sources) -> None:
    source = sources.make(4 * PART + 5, "progress")
    upload = user.create(source)
    assert (upload["state"], upload["part_size"], upload["part_count"]) == ("proving", PART, 5)
    assert (upload["received"], upload["missing"], upload["percent"]) == ([], [[1, 5]], 0)
    user.send(upload, source, [1, 2, 5])
    now = user.want(200, "GET", f"/uploads/{upload['id']}")
    assert (now["state"], now["received"], now["missing"]) == ("uploading", [[1, 2], [5, 5]], [[3, 4]])
    assert now["received_bytes"] == 2 * PART + 5
    assert now["percent"] == pytest.approx(100 * (2 * PART + 5) / source.size, abs=1)
    assert user.want(200, "DELETE", f"/uploads/{upload['id']}")["state"] == "aborted"


@pytest.mark.parametrize("by", ["digest", "resume_key"])
def test_two_machines_finish_one_upload_together(user: Client, sources: Sources, by: str) -> None:
    source = sources.make(6 * PART, f"two machines {by}")
    more: Json = {} if by == "digest" else {"digest": False, "resume_key": "laptop:/home/a/file:1700000000"}
    laptop, phone = user.another_machine(), user.another_machine()
    begun = laptop.create(source, **more)
    laptop.send(begun, source, [1, 3, 5])
    found = phone.create(source, **more)
    assert found["id"] == begun["id"]
    assert numbers_of(found["missing"]) == [2, 4, 6]
    phone.send(found, source)
    assert (sorted(laptop.sent), sorted(phone.sent)) == ([1, 3, 5], [2, 4, 6])
    file = laptop.complete(begun)
    assert phone.holds(file, source)


def test_another_size_name_or_user_is_another_upload(user: Client, other: Client, sources: Sources) -> None:
    source = sources.make(PART + 1, "the same")
    same = sources.make(PART + 2, "the same")
    ids = [
        user.create(source, "a", resume_key="k")["id"],
        user.create(source, "b", resume_key="k")["id"],
        user.create(same, "a", resume_key="k")["id"],
        user.create(source, "a")["id"],
        other.create(source, "a", resume_key="k")["id"],
    ]
    assert len(set(ids)) == 5
    assert user.create(source, "a", resume_key="k")["id"] == ids[0]
    for number, upload_id in enumerate(ids):
        (other if number == 4 else user).want(200, "DELETE", f"/uploads/{upload_id}")


def test_the_largest_file_has_ten_thousand_parts(user: Client) -> None:
    upload = user.want((201, 507), "POST", "/uploads", {"name": "huge", "size": 10_000 * PART + 1})
    if "error" not in upload:
        assert (upload["part_size"], upload["part_count"]) == (2 * PART, 5001)
        user.want(200, "DELETE", f"/uploads/{upload['id']}")
    too_large = user.call("POST", "/uploads", {"name": "huger", "size": 2**63 - 1})
    assert code(too_large) == (400, "SIZE_INVALID")


def test_an_expired_upload_is_swept_and_its_parts_are_freed(gateway: Gateway, user: Client, sources: Sources) -> None:
    source = sources.make(3 * PART, "expired")
    upload = user.create(source)
    user.send(upload, source, [1, 2])
    (last,) = user.sign(upload, source, [3]).values()
    assert upload["id"] in gateway.part_folders()
    gateway.query(
        "UPDATE upload SET expires_at = UTC_TIMESTAMP() - INTERVAL 1 SECOND WHERE id = %s",
        [bytes.fromhex(upload["id"])],
    )
    await_true(lambda: user.want(200, "GET", f"/uploads/{upload['id']}")["state"] == "expired", 10)
    await_true(lambda: upload["id"] not in gateway.part_folders(), 10)
    assert code(user.put(last, source.part(3))) == (409, "UPLOAD_NOT_OPEN")
    assert code(user.call("POST", f"/uploads/{upload['id']}/complete")) == (409, "UPLOAD_NOT_OPEN")
    gateway.await_nothing_lost()
    again = user.create(source)
    assert again["id"] != upload["id"]
    assert numbers_of(again["missing"]) == [1, 2, 3]
    user.send(again, source)
    assert user.holds(user.complete(again), source)


def test_the_files_and_uploads_are_listed(gateway: Gateway, sources: Sources) -> None:
    owner = gateway.user()
    files = [owner.upload(sources.make(100 + number, "listed"), f"file {number}") for number in range(5)]
    seen, cursor = [], ""
    while cursor is not None:
        page = owner.want(200, "GET", "/files?limit=2" + (f"&cursor={cursor}" if cursor else ""))
        seen += page["items"]
        cursor = page["next_cursor"]
    assert seen == files[::-1]
    assert [f["name"] for f in owner.want(200, "GET", "/files?order=name")["items"]] == [f["name"] for f in files]
    assert owner.want(200, "GET", f"/files?digest={files[3]['digest']}")["items"] == [files[3]]
    uploads = owner.want(200, "GET", "/uploads?state=done")["items"]
    assert [upload["name"] for upload in uploads] == [file["name"] for file in files][::-1]


def test_the_walk_by_curl_works_as_it_is_printed(gateway: Gateway, tmp_path: Path) -> None:
    examples = "".join(re.findall(r"^    .*\n", (ROOT / "docs" / "api.md").read_text(), re.M))
    assert "S=http://127.0.0.1:8080" in examples
    script = re.sub(r"http://127\.0\.0\.1:8080", gateway.address, examples)
    result = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "the same bytes" in result.stdout, result.stdout + result.stderr
    assert "the same again" in result.stdout, result.stdout + result.stderr
    assert '"error":{' not in result.stdout
    assert '"name":"bigger"' in result.stdout
    assert (tmp_path / "openapi.json").read_text().startswith('{"openapi":"3.1.0"')
    assert (tmp_path / "big").stat().st_size < 20 * MIB
