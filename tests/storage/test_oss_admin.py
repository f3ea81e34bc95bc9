"""`storage init` and `check` for OSS, with the stand-in: their requests, and how they judge the responses."""

from __future__ import annotations

import time
from xml.etree import ElementTree

import pytest

from api.core.errors import StorageError
from api.storage.base import Finding
from api.storage.oss.storage import OSSStorage
from tests.storage.contract import PREFIX
from tests.storage.oss_client import MakeOSS
from tests.storage.oss_standin import Standin

ORIGIN = "http://127.0.0.1:8080"
FOREIGN = {
    "cors": b"<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod>"
    b"</CORSRule><ResponseVary>false</ResponseVary></CORSConfiguration>",
    "lifecycle": b"<LifecycleConfiguration><Rule><ID>theirs</ID><Prefix /><Status>Enabled</Status><Filter>"
    b"<ObjectSizeGreaterThan>500</ObjectSizeGreaterThan><Not><Prefix>a</Prefix></Not></Filter>"
    b"<AbortMultipartUpload><Days>30</Days></AbortMultipartUpload></Rule></LifecycleConfiguration>",
}


def check(storage: OSSStorage, *origins: str) -> tuple[dict[str, str], dict[str, str]]:
    """The results that are right and wrong, by subject; every error names its remedy."""
    findings: list[Finding] = list(storage.checks(origins or (ORIGIN,)))
    assert all(finding.mend for finding in findings if not finding.ok)
    right, wrong = ({f.about: f.text for f in findings if f.ok == ok} for ok in (True, False))
    return right, wrong


def test_a_bucket_is_made_and_nothing_is_wrong_with_it(standin: Standin, make_oss: MakeOSS) -> None:
    standin.bucket.is_there = False
    storage = make_oss()
    _, wrong = check(storage)
    assert wrong == {"bucket": "there is no bucket sluice-test"}
    lines = list(storage.init([ORIGIN]))
    assert lines[:2] == ["bucket sluice-test: made", "public access: blocked"]
    right, wrong = check(storage)
    assert wrong == {}
    assert {"endpoint", "clock", "bucket", "public access", "lifecycle", "hashes", "round trip", "CORS"} <= right.keys()
    assert (standin.bucket.objects, standin.bucket.uploads) == ({}, {}), "a check deletes what it wrote"


def test_repeated_it_changes_nothing(standin: Standin, make_oss: MakeOSS) -> None:
    storage = make_oss()
    list(storage.init([ORIGIN]))
    before = dict(standin.bucket.configurations)
    assert all("was" in line for line in storage.init([ORIGIN]))
    assert standin.bucket.configurations == before
    assert standin.count("put_configuration") == 3


def test_rules_that_are_there_stay_as_they_are(standin: Standin, make_oss: MakeOSS) -> None:
    standin.bucket.configurations |= FOREIGN
    list(make_oss().init([ORIGIN]))
    for name, before in FOREIGN.items():
        after = ElementTree.fromstring(standin.bucket.configurations[name])  # noqa: S314
        foreign = [ElementTree.tostring(rule) for rule in after][1:]
        assert foreign == [ElementTree.tostring(rule) for rule in ElementTree.fromstring(before)]  # noqa: S314
    assert check(make_oss())[1] == {}


@pytest.mark.parametrize("name", ["cors", "lifecycle", "publicAccessBlock"])
def test_what_is_missing_is_found(standin: Standin, make_oss: MakeOSS, name: str) -> None:
    storage = make_oss()
    list(storage.init([ORIGIN]))
    del standin.bucket.configurations[name]
    about = {"cors": "CORS", "lifecycle": "lifecycle", "publicAccessBlock": "public access"}[name]
    assert list(check(storage)[1]) == [about]


def test_an_origin_that_is_not_allowed_is_found(make_oss: MakeOSS) -> None:
    storage = make_oss()
    list(storage.init([ORIGIN]))
    assert list(check(storage, ORIGIN, "http://localhost:1")[1]) == ["CORS"]


def test_wrong_keys_are_found(make_oss: MakeOSS) -> None:
    _, wrong = check(make_oss(secret_key="other"))
    assert list(wrong) == ["credentials"]
    assert "SignatureDoesNotMatch" in wrong["credentials"]
    with pytest.raises(StorageError, match="SignatureDoesNotMatch"):
        list(make_oss(secret_key="other").init([ORIGIN]))


def test_an_endpoint_that_is_dead_is_found(make_oss: MakeOSS) -> None:
    assert list(check(make_oss(public_endpoint="http://127.0.0.1:9"))[1]) == ["public endpoint"]


def test_a_skewed_clock_is_found(standin: Standin) -> None:
    late = OSSStorage(standin.settings(), lambda: PREFIX, now=lambda: time.time() - 1200)
    assert list(check(late)[1]) == ["clock"]


def test_an_answer_that_cannot_be_read_destroys_nothing(standin: Standin, make_oss: MakeOSS) -> None:
    standin.bucket.configurations |= FOREIGN
    for kind in ("garbage", "503"):
        standin.fail("get_configuration", kind, times=9)
        with pytest.raises(StorageError):
            list(make_oss().init([ORIGIN]))
        standin.faults.clear()
    assert {name: standin.bucket.configurations[name] for name in FOREIGN} == FOREIGN
