"""`storage init` and `check` on a real Ceph: no other rules are lost, and every fault that is made is found."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import pytest

from api.core.config import S3Config
from api.core.errors import StorageError
from api.storage.base import Finding
from api.storage.http import ask
from api.storage.s3.bucket import Bucket, named
from api.storage.s3.rules import child_text, merge
from api.storage.s3.sigv4 import Credentials
from api.storage.s3.storage import S3Storage
from tests.nginx import stub_storage
from tests.nginx.stub_storage import Answer
from tests.storage.contract import PREFIX

ORIGIN = "https://files.example"
LOCAL = "http://127.0.0.1:8080"
ORIGINS = (LOCAL,)

FOREIGN_CORS = b"""<CORSConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><CORSRule><ID>theirs</ID>
<AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod><ExposeHeader>x-theirs</ExposeHeader>
<MaxAgeSeconds>7</MaxAgeSeconds></CORSRule></CORSConfiguration>"""

# two tags in one rule: botocore reads only one of them from RGW's response, and would write the rule back with that one
FOREIGN_LIFECYCLE = b"""<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<Rule><ID>theirs</ID><Status>Enabled</Status><Filter><And><Prefix>tmp/</Prefix><Tag><Key>a</Key><Value>1</Value></Tag>
<Tag><Key>b</Key><Value>2</Value></Tag></And></Filter><Expiration><Days>1</Days></Expiration></Rule>
<Rule><ID>old form</ID><Prefix>logs/</Prefix><Status>Disabled</Status><Expiration><Date>2030-01-01T00:00:00.000Z</Date>
</Expiration></Rule></LifecycleConfiguration>"""


ABORT = ("AbortIncompleteMultipartUpload", "DaysAfterInitiation", "9")


@pytest.fixture
def config(s3_config: S3Config) -> S3Config:
    """A bucket that does not exist yet."""
    return replace(s3_config, bucket=f"new{os.urandom(6).hex()}")


@pytest.fixture
def bucket(config: S3Config) -> Bucket:
    return Bucket(config, Credentials(config.access_key, config.secret_key, config.region), time.time)


@pytest.fixture
def ready(config: S3Config) -> S3Config:
    """A bucket after init."""
    init(config)
    return config


def init(config: S3Config, origins: Sequence[str] = ORIGINS) -> list[str]:
    return list(S3Storage(config, lambda: PREFIX).init(origins))


def check(config: S3Config, origins: Sequence[str] = ORIGINS, ahead: float = 0) -> dict[str, list[Finding]]:
    """The findings by subject."""
    found: dict[str, list[Finding]] = {}
    for finding in S3Storage(config, lambda: PREFIX, now=lambda: time.time() + ahead).checks(origins):
        found.setdefault(finding.about, []).append(finding)
    return found


def wrong(found: dict[str, list[Finding]]) -> dict[str, str]:
    """The faults as texts; every one names its remedy."""
    faults = [finding for findings in found.values() for finding in findings if not finding.ok]
    assert all(fault.mend for fault in faults)
    return {fault.about: fault.text for fault in faults}


def objects(bucket: Bucket) -> list[str]:
    """Keys and unfinished uploads in the bucket."""
    left = []
    for query, entry in (("list-type=2", "Contents"), ("uploads=", "Upload")):
        root = ElementTree.fromstring(bucket.call("GET", query).body)  # noqa: S314
        left += [child_text(item, "Key") for item in root if item.tag.endswith(entry)]
    return left


def rule_texts(bucket: Bucket, configuration: str) -> list[bytes]:
    """Each rule of the bucket, as S3 writes it."""
    root = bucket.read(configuration)
    return [] if root is None else sorted(ElementTree.tostring(rule) for rule in root)


class TestInit:
    def test_a_new_bucket_has_everything_and_nothing_is_wrong_with_it(self, config: S3Config, bucket: Bucket) -> None:
        assert init(config)[0] == f"bucket {config.bucket}: made"
        assert wrong(check(config)) == {}
        assert objects(bucket) == [], "a check deletes what it wrote"

    def test_repeated_it_changes_nothing(self, ready: S3Config, bucket: Bucket) -> None:
        kinds = ("cors", "lifecycle", "publicAccessBlock")
        before = [rule_texts(bucket, kind) for kind in kinds]
        lines = init(ready)
        assert [("was" in line) for line in lines] == [True] * 4, lines
        assert [rule_texts(bucket, kind) for kind in kinds] == before

    def test_rules_that_are_there_stay_as_they_are_however_often(self, config: S3Config, bucket: Bucket) -> None:
        bucket.create(None)
        bucket.call("PUT", "cors=", FOREIGN_CORS)
        bucket.call("PUT", "lifecycle=", FOREIGN_LIFECYCLE)
        before = {kind: rule_texts(bucket, kind) for kind in ("cors", "lifecycle")}
        assert [len(rules) for rules in before.values()] == [1, 2]
        assert any(rule.count(b"Tag>") == 4 for rule in before["lifecycle"])
        for origins in (ORIGINS, ORIGINS, (LOCAL, ORIGIN)):
            init(config, origins)
            for kind, rules in before.items():
                after = rule_texts(bucket, kind)
                assert set(rules) <= set(after)
                assert len(after) == len(rules) + (kind == "cors")

    @pytest.mark.parametrize("others", [b"", FOREIGN_LIFECYCLE])
    def test_the_abort_rule_of_earlier_versions_is_taken_away_and_no_other(
        self, ready: S3Config, bucket: Bucket, others: bytes
    ) -> None:
        if others:
            bucket.call("PUT", "lifecycle=", others)
        before = rule_texts(bucket, "lifecycle")
        add_rule(bucket, f"{PREFIX}/", ABORT, name=f"sluice-{PREFIX}")
        add_rule(bucket, "other/", ABORT, name="sluice-other")
        lines = init(ready)
        assert "lifecycle: our rule that aborted unfinished uploads is taken away" in lines
        left = rule_texts(bucket, "lifecycle")
        assert set(before) < set(left)
        assert (len(left), any(b"sluice-other" in rule for rule in left)) == (len(before) + 1, True)
        assert "lifecycle: there was no rule of ours, the sweep ends unfinished uploads" in init(ready)

    def test_the_last_rule_is_taken_away_with_the_whole_list(self, ready: S3Config, bucket: Bucket) -> None:
        add_rule(bucket, f"{PREFIX}/", ABORT, name=f"sluice-{PREFIX}")
        init(ready)
        assert bucket.read("lifecycle") is None
        assert wrong(check(ready)) == {}

    def test_two_deployments_share_a_bucket(self, ready: S3Config, bucket: Bucket) -> None:
        list(S3Storage(ready, lambda: "other").init([ORIGIN]))
        assert (len(rule_texts(bucket, "lifecycle")), len(rule_texts(bucket, "cors"))) == (0, 2)
        assert wrong(check(ready)) == {}

    def test_a_region_that_this_storage_does_not_know_does_not_matter_to_it(self, config: S3Config) -> None:
        config = replace(config, region="eu-central-1")
        assert init(config)[0] == f"bucket {config.bucket}: made"
        assert wrong(check(config)) == {}

    def test_another_owners_bucket_is_not_taken(self, s3_config: S3Config, config: S3Config) -> None:
        with pytest.raises(StorageError, match="403"):
            init(replace(config, secret_key="wrong"))

    def test_a_block_that_makes_this_rgw_refuse_everything_is_loosened(self, ready: S3Config, bucket: Bucket) -> None:
        block_all(bucket)
        found = wrong(check(ready))
        assert "BlockPublicAcls" in found["writing"]
        assert "403" in found["round trip"]
        assert "without BlockPublicAcls" in init(ready)[1]
        assert wrong(check(ready)) == {}


def block_all(bucket: Bucket) -> None:
    """RGW 16 then refuses every PUT."""
    kinds = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    inner = "".join(f"<{kind}>true</{kind}>" for kind in kinds)
    body = f'<PublicAccessBlockConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</PublicAccessBlockConfiguration>'
    bucket.call("PUT", "publicAccessBlock=", body.encode())


class TestCheck:
    @pytest.mark.parametrize("change", [{"secret_key": "wrong"}, {"access_key": "nobody"}, {"session_token": "old"}])
    def test_wrong_credentials(self, ready: S3Config, change: dict[str, Any]) -> None:
        found = wrong(check(replace(ready, **change)))
        assert list(found) == ["credentials"]
        assert "is wrong" in found["credentials"]

    def test_a_missing_bucket(self, config: S3Config) -> None:
        assert wrong(check(config)) == {"bucket": f"there is no bucket {config.bucket}"}

    def test_a_dead_endpoint(self, ready: S3Config) -> None:
        found = wrong(check(replace(ready, endpoint="http://127.0.0.1:9")))
        assert found == {"endpoint": "127.0.0.1:9 is unreachable: Connection refused"}

    def test_a_dead_endpoint_of_the_clients(self, ready: S3Config) -> None:
        found = wrong(check(replace(ready, public_endpoint="http://127.0.0.1:9")))
        assert found == {"public endpoint": "127.0.0.1:9 is unreachable: Connection refused"}

    @pytest.mark.parametrize(("ahead", "direction"), [(1200, "behind"), (-1200, "ahead of")])
    def test_a_skewed_clock(self, ready: S3Config, ahead: float, direction: str) -> None:
        found = wrong(check(ready, ahead=ahead))
        assert list(found) == ["clock"]
        assert f" s {direction} this machine" in found["clock"]

    def test_a_clock_that_is_a_little_off_is_right(self, ready: S3Config) -> None:
        assert wrong(check(ready, ahead=120)) == {}

    def test_cors_that_is_missing(self, ready: S3Config, bucket: Bucket) -> None:
        bucket.call("DELETE", "cors=")
        assert wrong(check(ready)) == {"CORS": f"pages of {LOCAL} may not use PUT, GET"}

    def test_cors_that_lacks_our_header(self, ready: S3Config, bucket: Bucket) -> None:
        rules = FOREIGN_CORS.replace(b"<AllowedMethod>", b"<AllowedMethod>PUT</AllowedMethod><AllowedMethod>")
        bucket.call("PUT", "cors=", rules)
        found = check(ready)["CORS"]
        assert [finding.ok for finding in found] == [False, False]
        assert "does not see a part's ETag" in found[0].text
        assert found[1].text == f"pages of {LOCAL} may not use PUT"

    def test_cors_that_lacks_an_origin(self, ready: S3Config) -> None:
        public = replace(ready, public_endpoint=ready.endpoint)
        found = check(public, origins=(LOCAL, ORIGIN))
        assert [finding.ok for finding in found["CORS"]] == [True, False]
        assert ORIGIN in found["CORS"][1].text
        assert "their own machine" in found["clients"][0].text

    def test_cors_does_not_matter_through_the_edge(self, ready: S3Config, bucket: Bucket) -> None:
        bucket.call("DELETE", "cors=")
        assert "CORS" not in wrong(check(replace(ready, via_edge=True)))

    @pytest.mark.parametrize("prefix", ["", PREFIX[:3], f"{PREFIX}/aa/"])
    def test_a_rule_that_deletes_our_files(self, ready: S3Config, bucket: Bucket, prefix: str) -> None:
        found = wrong(check_with_rule(ready, bucket, prefix, ("Expiration", "Days", "30")))
        assert "rule bad deletes stored files" in found["lifecycle"]

    @pytest.mark.parametrize("prefix", ["", PREFIX[:3], f"{PREFIX}/aa/"])
    def test_a_rule_that_aborts_our_uploads_on_ceph(self, ready: S3Config, bucket: Bucket, prefix: str) -> None:
        found = wrong(check_with_rule(ready, bucket, prefix, ABORT))
        assert "rule bad aborts uploads: on Ceph" in found["lifecycle"]

    def test_a_rule_that_aborts_uploads_too_early_elsewhere(
        self, ready: S3Config, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Bucket, "is_rgw", lambda self: False)
        found = wrong(check_with_rule(ready, bucket, "", (*ABORT[:2], "3")))
        assert "after 3 days" in found["lifecycle"]
        bucket.remove("lifecycle")
        assert "lifecycle" not in wrong(check_with_rule(ready, bucket, "", ABORT))

    def test_rules_for_others_are_no_fault(self, ready: S3Config, bucket: Bucket) -> None:
        expires = ("Expiration", "Days", "30")
        assert wrong(check_with_rule(ready, bucket, "logs/", expires)) == {}

    def test_public_access_that_is_not_blocked(self, ready: S3Config, bucket: Bucket) -> None:
        bucket.call("DELETE", "publicAccessBlock=")
        found = check(ready)["public access"]
        assert [finding.ok for finding in found] == [False, False]
        assert "x-amz-acl: public-read makes an object public" in found[1].text
        assert objects(bucket) == []

    def test_a_bucket_that_is_open_to_list_and_write(self, ready: S3Config, bucket: Bucket) -> None:
        bucket.call("DELETE", "publicAccessBlock=")
        bucket.call("PUT", "acl=", headers={"x-amz-acl": "public-read-write"})
        texts = [finding.text for finding in check(ready)["public access"]]
        assert "anybody can list the bucket" in texts
        assert "anybody can write to the bucket" in texts
        assert objects(bucket) == []

    def test_versioning_is_said(self, ready: S3Config, bucket: Bucket) -> None:
        xml = '<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></VersioningConfiguration>'
        bucket.call("PUT", "versioning=", xml.encode())
        (finding,) = check(ready)["versioning"]
        assert finding.ok
        assert finding.mend

    def test_the_hash_is_found_to_be_bound(self, ready: S3Config) -> None:
        assert check(ready)["hashes"][0].text.startswith("binds sha256")

    def test_the_leak_of_resent_parts_is_what_the_bucket_shows(self, ready: S3Config, bucket: Bucket) -> None:
        (finding,) = check(ready)["re-sent parts"]
        left = int(bucket.call("HEAD", "read-stats=true").headers["x-rgw-bytes-used"])
        assert finding.ok, "a note, not an error of the settings"
        assert objects(bucket) == []
        if left:
            assert "leak" in finding.text
            assert "SLUICE_S3_VIA_EDGE" in finding.mend
        else:
            assert finding.text == "leave nothing behind"

    def test_a_page_without_tls_is_no_place_to_send_parts_to(self, ready: S3Config) -> None:
        found = wrong(check(ready, origins=(ORIGIN,)))
        assert set(found) == {"clients", "CORS"}


def check_with_rule(
    config: S3Config, bucket: Bucket, prefix: str, action: tuple[str, str, str]
) -> dict[str, list[Finding]]:
    """The findings with one more lifecycle rule."""
    add_rule(bucket, prefix, action)
    return check(config)


def add_rule(bucket: Bucket, prefix: str, action: tuple[str, str, str], name: str = "bad") -> None:
    rule = Element(named("Rule"))
    for tag, text in (("ID", name), ("Status", "Enabled")):
        SubElement(rule, named(tag)).text = text
    SubElement(SubElement(rule, named("Filter")), named("Prefix")).text = prefix
    kind, days, number = action
    SubElement(SubElement(rule, named(kind)), named(days)).text = number
    read, write = partial(bucket.read, "lifecycle"), partial(bucket.write, "lifecycle")
    merge(read, write, Element(named("LifecycleConfiguration")), rule)


@contextmanager
def other_s3(status: int, code: str, more: str = "") -> Iterator[str]:
    """The address of a server that refuses every signed call in one way."""
    body = f"<Error><Code>{code}</Code>{more}</Error>".encode()
    with stub_storage.running() as server:
        server.handle = lambda request: Answer(status if "X-Amz" in request.target else 403, body=body)
        yield server.base


@pytest.mark.parametrize(
    ("status", "code", "more", "about", "mend"),
    [
        (
            400,
            "AuthorizationQueryParametersError",
            "<Region>eu-west-3</Region>",
            "region",
            "SLUICE_S3_REGION=eu-west-3",
        ),
        (403, "SignatureDoesNotMatch", "", "credentials", "SLUICE_S3_SECRET_KEY"),
        (403, "InvalidAccessKeyId", "", "credentials", "SLUICE_S3_ACCESS_KEY"),
        (400, "ExpiredToken", "", "credentials", "SLUICE_S3_SESSION_TOKEN"),
        (403, "RequestTimeTooSkewed", "", "clock", "NTP"),
        (404, "NoSuchBucket", "", "bucket", "storage init"),
        (404, "", "", "bucket", "an S3 endpoint"),
        (503, "SlowDown", "", "bucket", ""),
    ],
)
def test_what_other_storages_say_is_told(status: int, code: str, more: str, about: str, mend: str) -> None:
    with other_s3(status, code, more) as endpoint:
        config = S3Config(
            single_put_max=0,
            endpoint=endpoint,
            public_endpoint="",
            bucket="bucket",
            access_key="key",
            secret_key="secret",
            session_token="",
            region="us-east-1",
            virtual_hosted=False,
            via_edge=False,
        )
        found = check(config)
    assert list(wrong(found)) == [about]
    assert mend in found[about][-1].mend


def test_an_address_that_does_not_answer_shows_no_query() -> None:
    with pytest.raises(StorageError) as caught:
        ask("GET", "http://127.0.0.1:9/a?X-Amz-Signature=hush")
    assert "hush" not in str(caught.value)
