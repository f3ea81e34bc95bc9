"""OSS signature version 4: the official vectors, oss2's results, and OSS's side of it, which accepts nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from unittest import mock

import oss2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oss2.credentials import StaticCredentialsProvider

from api.storage.oss.v4 import Presigner, encode_path
from api.storage.s3.sigv4 import Credentials
from tests.storage.oss_verifier import Account, Refused, Request, v4_signature, verify

NOW = 1_800_000_000
ACCOUNT = Account("LTAI5tExample", "secret", "cn-hangzhou", "sluice-test")
KEY = "0badcafe/ab/" + "ab" * 16
HOST = "https://sluice-test.oss-cn-hangzhou.aliyuncs.com"


def presigner(
    method: str = "PUT",
    key: str = KEY,
    headers: tuple[str, ...] = ("content-length",),
    now: int = NOW,
    expires: int = 900,
    account: Account = ACCOUNT,
    base: str = HOST,
) -> Presigner:
    credentials = Credentials(account.access_key, account.secret_key, account.region, account.token or None)
    resource = f"/{account.bucket}/{key}"
    return Presigner(credentials, method, f"{base}/{encode_path(key)}", resource, headers, now, expires)


class TestOfficialVectors:
    """Vectors of Alibaba's SDKs."""

    ACCOUNT = Account("ak", "sk", "cn-hangzhou", "bucket")
    KEY = "1234+-/123/1.txt"
    PARAMS: Mapping[str, str] = {
        "param1": "value1",
        "+param1": "value3",
        "|param1": "value4",
        "+param2": "",
        "|param2": "",
        "param2": "",
    }
    SIGNED: Mapping[str, str] = {"x-oss-head1": "value", "content-type": "application/octet-stream"}
    ADDITIONAL: Mapping[str, str] = {"abc": "value", "zabc": "value"}
    VECTORS = (
        (1702781677, "", (), "a39966c61718be0d5b14e668088b3fa07601033f6518ac7b523100014269c0fe"),
        (1702785388, "token", (), "3817ac9d206cd6dfc90f1c09c00be45005602e55898f26f5ddb06d7892e1f8b5"),
        (1702783809, "", ("abc", "zabc"), "6bd984bfe531afb6db1f7550983a741b103a8c58e5e14f83ea474c2322dfa2b7"),
    )

    @pytest.mark.parametrize(("now", "token", "additional", "signature"), VECTORS)
    def test_our_signature_is_the_official_one(
        self, now: int, token: str, additional: tuple[str, ...], signature: str
    ) -> None:
        account = Account("ak", "sk", "cn-hangzhou", "bucket", token)
        signer = presigner("PUT", self.KEY, (*self.SIGNED, *additional), now, 599, account)
        url = signer.sign(self.PARAMS, {**self.SIGNED, **self.ADDITIONAL})
        assert url.endswith(f"&x-oss-signature={signature}")

    @pytest.mark.parametrize(("now", "token", "additional", "signature"), VECTORS)
    def test_the_verifiers_signature_is_the_official_one(
        self, now: int, token: str, additional: tuple[str, ...], signature: str
    ) -> None:
        account = Account("ak", "sk", "cn-hangzhou", "bucket", token)
        date = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
        query = {
            **self.PARAMS,
            "x-oss-signature-version": "OSS4-HMAC-SHA256",
            "x-oss-credential": f"ak/{date[:8]}/cn-hangzhou/oss/aliyun_v4_request",
            "x-oss-date": date,
            "x-oss-expires": "599",
        }
        query |= {"x-oss-security-token": token} if token else {}
        query |= {"x-oss-additional-headers": ";".join(additional)} if additional else {}
        headers = {**self.SIGNED, **self.ADDITIONAL, "xyz": "value"}
        request = Request("PUT", self.KEY, [*query.items()], headers)
        assert v4_signature(request, account, date, additional, "UNSIGNED-PAYLOAD") == signature


# XML and HTTP can carry neither halves of surrogate pairs nor controls
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30)
NAMES = TEXT.filter(lambda name: name and not name.startswith("x-oss-"))
OWN = ("x-oss-process", "x-oss-traffic-limit", "response-content-disposition", "response-cache-control", "x-oss-zzz")
TWINS = ("a", "a-b", "a.b", "a1", "x-oss")  # names and pairs sort differently: "-" and "." come before "="
PARAMS = st.dictionaries(NAMES | st.sampled_from(OWN + TWINS), TEXT, max_size=6)
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
HEADERS = st.dictionaries(
    st.sampled_from(("content-length", "content-type", "content-md5", "x-oss-meta-a", "x-oss-range-behavior", "abc")),
    VALUES,
)


class TestAgainstOss2:
    @given(
        method=st.sampled_from(("GET", "PUT")),
        key=TEXT.filter(str.strip),
        params=PARAMS,
        headers=HEADERS,
        token=st.sampled_from(("", "CAIS+token/with=signs")),
        region=st.sampled_from(("cn-hangzhou", "us-east-1")),
        now=st.integers(1_500_000_000, 2_500_000_000),
        expires=st.integers(1, 604_800),
        endpoint=st.sampled_from(
            (
                ("https://oss-cn-hangzhou.aliyuncs.com", "https://sluice-test.oss-cn-hangzhou.aliyuncs.com"),
                ("http://127.0.0.1:9000", "http://127.0.0.1:9000/sluice-test"),
            )
        ),
    )
    @settings(max_examples=300, deadline=None)
    def test_every_url_is_the_same_byte_for_byte(
        self,
        method: str,
        key: str,
        params: dict[str, str],
        headers: dict[str, str],
        token: str,
        region: str,
        now: int,
        expires: int,
        endpoint: tuple[str, str],
    ) -> None:
        account = Account("LTAI+5t/Example", "sec/ret+=", region, "sluice-test", token)
        auth = oss2.ProviderAuthV4(StaticCredentialsProvider(account.access_key, account.secret_key, token))
        bucket = oss2.Bucket(auth, endpoint[0], account.bucket, region=region)
        with mock.patch("oss2.auth.datetime") as clock:
            clock.utcnow.return_value = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
            expected = bucket.sign_url(
                method, key, expires, dict(headers), dict(params), slash_safe=True, additional_headers=list(headers)
            )
        before = dict(params)
        url = presigner(method, key, tuple(headers), now, expires, account, endpoint[1]).sign(params, headers)
        assert url == expected
        assert params == before  # oss2 writes into the caller's dictionary
        verify(Request.of(method, url, account.bucket, headers), account, now + expires)


def part_url(number: int = 1, length: int = 8_388_608) -> str:
    params = {"uploadId": "0004B999EF5A239B", "partNumber": str(number)}
    return presigner().sign(params, {"content-length": str(length)})


def refused(url: str, headers: Mapping[str, str], method: str = "PUT", now: float = NOW) -> str:
    """The code of the error."""
    with pytest.raises(Refused) as caught:
        verify(Request.of(method, url, ACCOUNT.bucket, headers), ACCOUNT, now)
    return caught.value.code


LENGTH = {"content-length": "8388608"}


class TestTampering:
    def test_the_url_itself_is_taken_until_it_expires(self) -> None:
        for now in (NOW - 899, NOW, NOW + 900):
            verify(Request.of("PUT", part_url(), ACCOUNT.bucket, LENGTH), ACCOUNT, now)
        assert refused(part_url(), LENGTH, now=NOW + 901) == "AccessDenied"
        assert refused(part_url(), LENGTH, now=NOW - 901) == "RequestTimeTooSkewed"

    def test_the_host_is_not_signed(self) -> None:
        moved = part_url().replace(HOST, "http://edge.internal:8080/sluice-test")
        verify(Request.of("PUT", moved, ACCOUNT.bucket, LENGTH), ACCOUNT, NOW)

    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
    def test_another_method_is_refused(self, method: str) -> None:
        assert refused(part_url(), LENGTH, method) == "SignatureDoesNotMatch"

    @pytest.mark.parametrize(
        "change",
        [
            lambda url: url.replace("partNumber=1", "partNumber=2"),
            lambda url: url.replace("0004B999EF5A239B", "0004B999EF5A239C"),
            lambda url: url.replace("0badcafe/ab/", "0badcafe/aa/"),
            lambda url: url.replace("x-oss-expires=900", "x-oss-expires=901"),
            lambda url: url.replace("x-oss-additional-headers=content-length&", ""),
            lambda url: url.replace("?", "?acl&"),
            lambda url: url.replace("?", "?response-content-type=text%2Fhtml&"),
            lambda url: url.replace("?", "?x-oss-process=image%2Fresize&"),
            lambda url: url.replace("uploadId=0004B999EF5A239B&", ""),
            lambda url: url[:-1] + ("0" if url[-1] != "0" else "1"),
            lambda url: url[:-2],
            lambda url: url[:-64] + url[-64:].upper(),
        ],
    )
    def test_a_changed_url_is_refused(self, change: Callable[[str], str]) -> None:
        assert change(part_url()) != part_url()
        assert refused(change(part_url()), LENGTH) == "SignatureDoesNotMatch"

    @pytest.mark.parametrize(
        "change",
        [
            lambda url: url.replace("cn-hangzhou%2F", "cn-shanghai%2F"),
            lambda url: url.replace("LTAI5tExample", "LTAI5tAnother"),
            lambda url: url.replace("x-oss-expires=900", "x-oss-expires=604801"),
            lambda url: url.replace("x-oss-expires=900", "x-oss-expires=0"),
            lambda url: url.replace("x-oss-expires=900", "x-oss-expires=-1"),
            lambda url: url.replace("OSS4-HMAC-SHA256", "OSS2"),
            lambda url: url + "&partNumber=2",
        ],
    )
    def test_a_url_that_makes_no_sense_is_refused(self, change: Callable[[str], str]) -> None:
        assert refused(change(part_url()), LENGTH) == "InvalidArgument"

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"content-length": "8388607"},
            {"content-length": "08388608"},
            {**LENGTH, "content-type": "text/html"},
            {**LENGTH, "content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="},
            {**LENGTH, "x-oss-copy-source": "/sluice-test/0badcafe/cd/other"},
            {**LENGTH, "x-oss-object-acl": "public-read"},
            {**LENGTH, "x-oss-server-side-encryption": "AES256"},
        ],
    )
    def test_other_headers_are_refused(self, headers: Mapping[str, str]) -> None:
        assert refused(part_url(), headers) == "SignatureDoesNotMatch"

    def test_headers_that_mean_nothing_to_oss_are_taken(self) -> None:
        headers = {**LENGTH, "origin": "https://example.org", "user-agent": "x", "content-encoding": "gzip"}
        verify(Request.of("PUT", part_url(), ACCOUNT.bucket, headers), ACCOUNT, NOW)

    def test_a_temporary_keys_token_is_part_of_it(self) -> None:
        account = Account("LTAI5tExample", "secret", "cn-hangzhou", "sluice-test", "token")
        url = presigner(account=account).sign({"partNumber": "1"}, LENGTH)
        verify(Request.of("PUT", url, account.bucket, LENGTH), account, NOW)
        without = url.replace("x-oss-security-token=token&", "")
        assert refused(url, LENGTH) == "InvalidSecurityToken"
        assert refused(without, LENGTH) == "SignatureDoesNotMatch"

    def test_a_signed_header_must_be_sent_as_it_was_signed(self) -> None:
        url = presigner("GET", headers=("x-oss-range-behavior",)).sign({}, {"x-oss-range-behavior": "standard"})
        sent = {"x-oss-range-behavior": "standard", "range": "bytes=0-9"}
        verify(Request.of("GET", url, ACCOUNT.bucket, sent), ACCOUNT, NOW)
        assert refused(url, {"range": "bytes=0-9"}, "GET") == "SignatureDoesNotMatch"
        assert refused(url, {**sent, "x-oss-range-behavior": "none"}, "GET") == "SignatureDoesNotMatch"

    def test_spaces_around_a_headers_value_do_not_count(self) -> None:
        url = presigner("GET", headers=("x-oss-range-behavior",)).sign({}, {"x-oss-range-behavior": " standard "})
        for value in ("standard", "\tstandard  "):
            verify(Request.of("GET", url, ACCOUNT.bucket, {"x-oss-range-behavior": value}), ACCOUNT, NOW)

    def test_what_a_download_is_to_look_like_is_signed(self) -> None:
        wanted = {"response-content-disposition": 'attachment; filename="a b.txt"', "x-oss-traffic-limit": "819200"}
        url = presigner("GET", headers=()).sign(wanted, {})
        verify(Request.of("GET", url, ACCOUNT.bucket, {}), ACCOUNT, NOW)
        assert refused(url.replace("819200", "838860800"), {}, "GET") == "SignatureDoesNotMatch"


class TestRefusals:
    @pytest.mark.parametrize("expires", [-1, 0, 604_801, 10**9])
    def test_a_life_that_oss_would_not_take_is_not_signed(self, expires: int) -> None:
        with pytest.raises(ValueError, match="604800"):
            presigner(expires=expires)

    @pytest.mark.parametrize("region", ["", "oss-cn-hangzhou"])
    def test_a_region_that_oss_would_not_take_is_not_signed(self, region: str) -> None:
        with pytest.raises(ValueError, match="cn-hangzhou"):
            presigner(account=Account("ak", "sk", region))

    @pytest.mark.parametrize("name", ["x-oss-signature", "x-oss-expires", "x-oss-date", "x-oss-credential"])
    def test_the_signatures_own_parameters_cannot_be_given(self, name: str) -> None:
        with pytest.raises(ValueError, match="not the caller's"):
            presigner().sign({name: "1"}, LENGTH)

    def test_a_header_that_is_to_be_signed_must_be_given(self) -> None:
        with pytest.raises(KeyError):
            presigner().sign({}, {})


def test_the_day_that_a_url_is_signed_on_is_its_own() -> None:
    midnight = NOW - NOW % 86_400
    for now in (midnight - 1, midnight, midnight + 86_399):
        url = presigner(now=now).sign({"partNumber": "1"}, LENGTH)
        assert time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)) in url
        verify(Request.of("PUT", url, ACCOUNT.bucket, LENGTH), ACCOUNT, now)
