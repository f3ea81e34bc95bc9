"""Sluice's URLs equal botocore's, byte for byte: for any key, upload id, credentials and moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any
from unittest import mock
from urllib.parse import quote

import boto3
import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config as BotoConfig
from botocore.credentials import Credentials as BotoCredentials
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.core.config import S3Config
from api.storage.base import MultipartRef
from api.storage.s3.bucket import Address
from api.storage.s3.sigv4 import MAX_EXPIRES, UNSIGNED, Credentials, Presigner, encode
from api.storage.s3.storage import TARGET_LIFE, S3Storage

REGIONS = ("us-east-1", "eu-central-1", "default")
TOKENS = ("", "FwoGZXIvYXdzE+/=token&with every=thing%25")
HASH = "5e" * 32

# text that an encoder could take for something else
HOSTILE = (
    " ",
    "+",
    "%2F",
    "a//b",
    "/a",
    "a/",
    "ü",
    "日本",
    "~*'()!",
    "&=?#;:@$,",
    "\\",
    '"<>',
    "\x7f",
    "\t",
    "a b+c%20",
    "é",
)
texts = st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=40))
# S3 takes '.' and '..' in a path as names, other software as navigation; botocore's callers disagree
keys = texts.filter(lambda key: not {".", ".."} & set(key.split("/")) and key.strip("/") != "")
moments = st.integers(0, 4_102_444_800)
lives = st.integers(1, MAX_EXPIRES)
many = settings(max_examples=200, deadline=None)


@contextmanager
def clock_at(moment: int) -> Iterator[None]:
    """Stops botocore's clock."""
    now = datetime.fromtimestamp(moment, UTC)
    with mock.patch("botocore.auth.get_current_datetime", return_value=now):
        yield


def config(region: str, token: str, *, virtual: bool, endpoint: str = "http://s3.example:8480") -> S3Config:
    return S3Config(
        single_put_max=0,
        endpoint=endpoint,
        public_endpoint="",
        bucket="bucket",
        access_key="AKIAIOSFODNN7EXAMPLE",
        secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        session_token=token,
        region=region,
        virtual_hosted=virtual,
        via_edge=False,
    )


@cache
def boto(given_config: S3Config) -> Any:
    """A client, which takes 50 ms to make."""
    return boto3.session.Session().client(
        "s3",
        endpoint_url=given_config.endpoint,
        region_name=given_config.region,
        aws_access_key_id=given_config.access_key,
        aws_secret_access_key=given_config.secret_key,
        aws_session_token=given_config.session_token or None,
        config=BotoConfig(
            signature_version="s3v4",
            s3={"addressing_style": "virtual" if given_config.virtual_hosted else "path"},
            request_checksum_calculation="when_required",
        ),
    )


configs = st.builds(config, st.sampled_from(REGIONS), st.sampled_from(TOKENS), virtual=st.booleans())


def credentials(of: S3Config) -> Credentials:
    return Credentials(of.access_key, of.secret_key, of.region, of.session_token or None)


def path(of: S3Config, key: str) -> str:
    """The path of a key, encoded as S3 requires."""
    return Address(of, of.endpoint).path(quote(key, safe="/-_.~"))


def ours(of: S3Config, method: str, key: str, now: int, expires: int, theirs: str, headers: Mapping[str, str]) -> str:
    """Sluice's URL with the parameters in botocore's order."""
    presigner = Presigner(
        credentials(of), method, Address(of, of.endpoint).base, path(of, key), tuple(headers), now, expires
    )
    shown = theirs.partition("?")[2].partition("X-Amz-Algorithm=")[0].rstrip("&")
    return presigner.sign("&".join(sorted(shown.split("&"))) if shown else "", headers, shown=shown)


@many
@given(configs, keys, texts, st.integers(1, 10_000), st.none() | st.integers(0, 2**40), moments, lives)
@example(config("us-east-1", "", virtual=False), "a b", "2~x+/=", 1, 5, 0, 1)
def test_a_parts_url(
    of: S3Config, key: str, upload_id: str, number: int, length: int | None, now: int, expires: int
) -> None:
    params = {"Bucket": "bucket", "Key": key, "UploadId": upload_id, "PartNumber": number}
    headers = {} if length is None else {"content-length": str(length)}
    with clock_at(now):
        theirs = boto(of).generate_presigned_url(
            "upload_part", params if length is None else {**params, "ContentLength": length}, expires
        )
    assert ours(of, "PUT", key, now, expires, theirs, headers) == theirs


overrides = st.fixed_dictionaries(
    {},
    optional={
        "ResponseContentDisposition": texts,
        "ResponseContentType": texts,
        "ResponseCacheControl": texts,
        "ResponseContentEncoding": texts,
        "ResponseContentLanguage": texts,
        "VersionId": texts,
    },
)


@many
@given(configs, keys, overrides, moments, lives)
def test_a_gets_url(of: S3Config, key: str, given_overrides: dict[str, str], now: int, expires: int) -> None:
    with clock_at(now):
        theirs = boto(of).generate_presigned_url(
            "get_object", {"Bucket": "bucket", "Key": key, **given_overrides}, expires
        )
    assert ours(of, "GET", key, now, expires, theirs, {}) == theirs


class BoundAuth(S3SigV4QueryAuth):  # type: ignore[misc]  # botocore has no types
    """botocore's signer, extended for a body with a known hash."""

    def __init__(self, sha256: str, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._sha256 = sha256

    def payload(self, request: AWSRequest) -> str:
        return self._sha256


def signed_by_botocore(
    who: Credentials, url: str, headers: Mapping[str, str], sha256: str, now: int, expires: int
) -> str:
    request = AWSRequest(method="PUT", url=url, headers=dict(headers))
    boto_credentials = BotoCredentials(who.access_key, who.secret_key, who.session_token)
    with clock_at(now):
        BoundAuth(sha256, boto_credentials, "s3", who.region, expires=expires).add_auth(request)
    return str(request.url)


printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


@many
@given(
    st.builds(Credentials, printable, texts, st.sampled_from(REGIONS), st.none() | texts),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789/-", min_size=1, max_size=60).filter(lambda key: "//" not in key),
    texts,
    st.integers(1, 10_000),
    st.integers(0, 2**40),
    st.binary(min_size=32, max_size=32),
    moments,
    lives,
)
def test_a_parts_url_that_binds_the_hash(
    who: Credentials, key: str, upload_id: str, number: int, length: int, sha256: bytes, now: int, expires: int
) -> None:
    base, where, query = "https://s3.example", f"/bucket/{key}", f"partNumber={number}&uploadId={encode(upload_id)}"
    headers = {"content-length": str(length), "x-amz-content-sha256": sha256.hex()}
    presigner = Presigner(who, "PUT", base, where, tuple(headers), now, expires)
    theirs = signed_by_botocore(who, f"{base}{where}?{query}", headers, sha256.hex(), now, expires)
    assert presigner.sign(query, headers, sha256.hex()) == theirs


@pytest.mark.parametrize(
    ("endpoint", "virtual"),
    [
        ("http://s3.example:8480", False),
        ("https://s3.example", False),
        ("http://[::1]:8480", False),
        ("http://s3.example:8480", True),
        ("https://s3.example", True),
        ("https://s3.example:443", False),
        ("http://S3.example:80", True),
    ],
)
@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("binds_hash", [False, True])
def test_what_the_storage_gives_out(endpoint: str, virtual: bool, token: str, binds_hash: bool) -> None:
    of, now = config("eu-central-1", token, virtual=virtual, endpoint=endpoint), 1_800_000_123
    storage = S3Storage(of, lambda: "0badcafe", now=lambda: now + 0.5)
    # botocore leaves the port in the URL, but not in the Host header that it signs; clients do not send it either
    of = replace(of, endpoint=endpoint.replace(":443", "").replace("S3.example:80", "s3.example"))
    key, upload_id = "0badcafe/ab/" + "ab" * 16, "2~up+load/id="
    ref = MultipartRef("ab" * 16, key, upload_id, 20_000_000, 8_388_608, 3, "", 0, binds_hash)
    signed = storage.presign_part(ref, 3, HASH, now + 900)
    length = 20_000_000 - 2 * 8_388_608
    params = {"Bucket": "bucket", "Key": key, "UploadId": upload_id, "PartNumber": 3, "ContentLength": length}
    with clock_at(now):
        theirs = boto(of).generate_presigned_url("upload_part", params, 900)
    params = {"Bucket": "bucket", "Key": key, "ResponseCacheControl": "no-store"}
    with clock_at(now - now % (TARGET_LIFE // 4)):
        target = boto(of).generate_presigned_url("get_object", params, TARGET_LIFE)
    if binds_hash:
        headers = {"content-length": str(length), "x-amz-content-sha256": HASH}
        unsigned, _, _ = theirs.partition("&X-Amz-Algorithm=")
        theirs = signed_by_botocore(credentials(of), unsigned, headers, HASH, now, 900)
    assert signed.url == theirs
    assert signed.headers == ({"x-amz-content-sha256": HASH} if binds_hash else {})
    assert storage.internal_uri(key) == target


def test_amazons_own_example() -> None:
    """AWS, "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)": test.txt, May 24th 2013."""
    who = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
    presigner = Presigner(who, "GET", "https://examplebucket.s3.amazonaws.com", "/test.txt", (), 1_369_353_600, 86_400)
    assert presigner.sign("", {}, UNSIGNED).endswith(
        "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


@pytest.mark.parametrize("life", [0, -1, MAX_EXPIRES + 1])
def test_a_life_that_no_s3_would_take_is_refused(life: int) -> None:
    with pytest.raises(ValueError, match="a URL lives"):
        Presigner(Credentials("a", "b", "c"), "GET", "http://x", "/", (), 0, life)
