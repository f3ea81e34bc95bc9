"""Tokens: itsdangerous' bytes, one spelling each, one purpose each."""

from __future__ import annotations

import base64
import hashlib
import json
import string
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import TimestampSigner
from itsdangerous.encoding import base64_encode

from api.core.claims import AccessClaims, Claims, CursorClaims, LinkClaims, PartClaims, RefreshClaims
from api.core.errors import TokenError, TokenExpired
from api.core.tokens import MAX_LENGTH, PURPOSES, Tokens

OLD, NEW, FOREIGN = "o" * 64, "n" * 64, "f" * 64
NOW = 1_900_000_000
CLAIMS = AccessClaims(NOW + 60, "5" * 32, "a" * 32, 3, "user", "default")
CURSOR = CursorClaims(NOW + 60, "a" * 32, "files", ['📦 é"'])
REFRESH = RefreshClaims(NOW + 60, "5" * 32, "x" * 1000)
PART = PartClaims(
    NOW + 60, "1" * 32, 1, 2, "a" * 32, "5" * 32, 3, "default", url="http://10.0.0.1/bucket/key?signature"
)
BASE64URL = string.ascii_letters + string.digits + "-_"
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "tokens.json").read_text())
tokens = Tokens([OLD, NEW])


def refused(token: str, kind: type[Claims] = AccessClaims, by: Tokens = tokens) -> bool:
    """Whether a token is refused as one that we never signed; any other exception is a failure."""
    try:
        by.verify(kind, token, now=NOW)
    except TokenExpired:
        return False
    except TokenError:
        return True
    return False


def signed(claims: object) -> str:
    """A token that says anything, with a good signature."""
    return tokens._sign("access", json.dumps(claims).encode(), NOW)


@pytest.mark.parametrize("keys", [[NEW], [OLD, NEW]], ids=["one key", "two keys"])
@pytest.mark.parametrize("claims", [CLAIMS, CURSOR, REFRESH], ids=lambda claims: claims.purpose)
def test_a_token_is_what_itsdangerous_signs(claims: Claims, keys: list[str]) -> None:
    signer = TimestampSigner(keys, salt=claims.purpose, key_derivation="hmac", digest_method=hashlib.sha256)
    with patch.object(TimestampSigner, "get_timestamp", return_value=NOW):
        expected = signer.sign(base64_encode(msgspec.json.encode(claims))).decode()
    assert Tokens(keys).sign(claims, now=NOW) == expected


def test_a_good_token_gives_its_claims() -> None:
    assert tokens.verify(AccessClaims, tokens.sign(CLAIMS, now=NOW), now=NOW) == CLAIMS


def claims_of(purpose: str, token: str, by: Tokens, now: int) -> dict[str, Any]:
    """The claims of a token of any purpose, as the vectors write them."""
    if purpose != "link":
        found = by.unseal(token, now=now) if purpose == "part" else by.verify(AccessClaims, token, now=now)
        told: dict[str, Any] = msgspec.to_builtins(found)
        return told
    claims = by.verify_link(token, now=now)
    ids = {"jti": claims.link_id.hex(), "file": claims.file_id.hex()}
    return ids | {"gen": claims.generation, "disp": claims.disposition, "exp": claims.exp}


class TestVectors:
    @pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda vector: vector["token"][-8:])
    def test_a_valid_one_passes(self, vector: dict[str, Any]) -> None:
        by = Tokens(vector.get("keys", VECTORS["keys"]))
        assert claims_of(vector["purpose"], vector["token"], by, 0) == vector["claims"]

    @pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda vector: f"{vector['purpose']} {vector['why']}")
    def test_an_invalid_one_is_refused(self, vector: dict[str, Any]) -> None:
        if vector["why"] == "no session":
            return  # the edge checks the claims of parts
        with pytest.raises(TokenError):
            claims_of(vector["purpose"], vector["token"], Tokens(VECTORS["keys"]), 1_700_000_001)

    def test_there_are_some_of_every_purpose_that_the_edge_verifies(self) -> None:
        assert {"access", "link", "part"} <= {vector["purpose"] for vector in VECTORS["valid"]}
        assert len(VECTORS["invalid"]) >= 5


def test_a_token_is_valid_for_one_purpose_only() -> None:
    kinds = (AccessClaims, RefreshClaims, CursorClaims)
    assert {*(kind.purpose for kind in kinds), "link"} == set(PURPOSES)
    for claims in (CLAIMS, REFRESH, CURSOR):
        token = tokens.sign(claims, now=NOW)
        assert [kind for kind in kinds if not refused(token, kind)] == [type(claims)]
        with pytest.raises(TokenError):
            tokens.verify_link(token, now=NOW)


class TestExpiry:
    @pytest.mark.parametrize(("exp", "expired"), [(NOW - 1, True), (NOW, True), (NOW + 1, False)])
    def test_a_token_is_good_before_its_expiry_only(self, exp: int, expired: bool) -> None:
        claims = msgspec.structs.replace(CLAIMS, exp=exp)
        token = tokens.sign(claims, now=NOW)
        if expired:
            with pytest.raises(TokenExpired):
                tokens.verify(AccessClaims, token, now=NOW)
        else:
            assert tokens.verify(AccessClaims, token, now=NOW) == claims

    @pytest.mark.parametrize(
        "change", [{"exp": None}, {"exp": "9999999999"}, {"exp": 9e9 + 0.5}, {"gen": "3"}, {"sid": 5}]
    )
    def test_claims_of_other_types_are_none(self, change: dict[str, Any]) -> None:
        good = msgspec.to_builtins(CLAIMS)
        assert not refused(signed(good))
        assert refused(signed(good | change))

    @pytest.mark.parametrize("claims", [{}, {"exp": NOW + 60}, [9999999999], "x", 1, None])
    def test_nor_are_claims_without_them(self, claims: Any) -> None:
        assert refused(signed(claims))

    def test_an_expired_token_of_another_purpose_is_invalid_not_expired(self) -> None:
        assert refused(tokens.sign(msgspec.structs.replace(CURSOR, exp=1), now=NOW))


class TestRotation:
    def test_an_older_key_still_verifies_and_the_newest_signs(self) -> None:
        assert not refused(Tokens([OLD]).sign(CLAIMS, now=NOW))
        assert refused(tokens.sign(CLAIMS, now=NOW), by=Tokens([OLD]))

    def test_a_retired_key_verifies_no_more(self) -> None:
        assert refused(Tokens([OLD]).sign(CLAIMS, now=NOW), by=Tokens([NEW]))

    def test_a_foreign_key_never_verifies(self) -> None:
        assert refused(Tokens([FOREIGN]).sign(CLAIMS, now=NOW))


class TestSpellings:
    """itsdangerous alone accepts several texts for one signature; all but one are refused."""

    token = tokens.sign(CLAIMS, now=NOW)

    def test_the_last_characters_unused_bits_are_zero(self) -> None:
        last = BASE64URL.index(self.token[-1])
        others = [self.token[:-1] + BASE64URL[last ^ bits] for bits in (1, 2, 3)]
        assert base64.urlsafe_b64decode(others[0][-43:] + "=") == base64.urlsafe_b64decode(self.token[-43:] + "=")
        assert all(refused(other) for other in others)

    @pytest.mark.parametrize(
        "change",
        [
            lambda token: token + "=",
            lambda token: token + " ",
            lambda token: token + "\n",
            lambda token: " " + token,
            lambda token: token[:-1] + "\n" + token[-1:],
            lambda token: token[:-43] + "=" + token[-42:],
            lambda token: token[:-43] + "!" + token[-42:],
            lambda token: token[:-43] + "!" * 43,
            lambda token: token[:-43] + "é" * 43,
            lambda token: token[:-43] + "\ud800" * 43,
            lambda token: token[:-43] + "+" + token[-42:],
            lambda token: token[:-43] + "/" * 43,
            lambda token: token[:-43] + "A" * 43,
            lambda token: token.replace(".", ".."),
            lambda token: "." + token,
            lambda token: token[1:],
            lambda token: token.partition(".")[2],
            lambda token: token.rpartition(".")[0],
            lambda token: token[-43:],
            lambda token: "." + token[-43:],
            lambda token: ".." + token[-43:],
            lambda token: "",
            lambda token: "." * 43,
            lambda token: "A" * 43,
            lambda token: token + "." + token,
            lambda token: token.swapcase(),
        ],
    )
    def test_any_other_spelling_is_refused(self, change: Any) -> None:
        assert refused(change(self.token))

    def test_a_token_longer_than_the_edge_reads_is_refused(self) -> None:
        def of(length: int) -> str:
            return tokens.sign(msgspec.structs.replace(CLAIMS, role="y" * length), now=NOW)

        fits = max((of(n) for n in range(1200, 1520) if len(of(n)) <= MAX_LENGTH), key=len)
        longer = next(of(n) for n in range(1200, 1520) if len(of(n)) > MAX_LENGTH)
        assert not refused(fits)
        assert refused(longer)


@given(st.data())
def test_no_mutation_of_a_token_passes(data: st.DataObject) -> None:
    token = tokens.sign(CLAIMS, now=NOW)
    at = data.draw(st.integers(0, len(token) - 1))
    kind = data.draw(st.sampled_from(["replace", "insert", "delete", "swap"]))
    character = data.draw(st.sampled_from(BASE64URL + ".=+/ \n\0é"))
    changed = {
        "replace": token[:at] + character + token[at + 1 :],
        "insert": token[:at] + character + token[at:],
        "delete": token[:at] + token[at + 1 :],
        "swap": token[:at] + token[at : at + 2][::-1] + token[at + 2 :],
    }[kind]
    assert changed == token or refused(changed)


@given(st.text(max_size=200))
def test_no_text_breaks_the_parser(text: str) -> None:
    assert refused(text)
    assert refused(f"{text}.{text}.{'A' * 43}")


class TestDerive:
    def test_bytes_depend_on_the_key_and_on_where_each_part_ends(self) -> None:
        seen = {
            tokens.derive(b"ab", b"c"),
            tokens.derive(b"a", b"bc"),
            tokens.derive(b"abc"),
            tokens.derive(b"abc", b""),
            Tokens([OLD]).derive(b"ab", b"c"),
        }
        assert len(seen) == 5
        assert tokens.derive(b"ab", b"c") == Tokens([FOREIGN, NEW]).derive(b"ab", b"c")


class TestSealed:
    def test_is_opened_by_the_newest_and_by_older_keys_and_by_no_other(self) -> None:
        for keys in ([NEW], [OLD], [OLD, NEW]):
            assert tokens.unseal(Tokens(keys).seal(PART, now=NOW), now=NOW) == PART
        with pytest.raises(TokenError):
            tokens.unseal(Tokens([FOREIGN]).seal(PART, now=NOW), now=NOW)

    def test_says_nothing_and_nothing_twice(self) -> None:
        sealed = [base64.urlsafe_b64decode(tokens.seal(PART, now=NOW) + "==") for _ in range(2)]
        for word in (b"http", b"bucket", b"signature", b"exp"):
            assert not any(word in seal for seal in sealed)
        assert len({seal[:12] for seal in sealed}) == len({seal[12:] for seal in sealed}) == 2

    def test_is_over_when_it_expires(self) -> None:
        with pytest.raises(TokenExpired):
            tokens.unseal(tokens.seal(msgspec.structs.replace(PART, exp=NOW), now=NOW), now=NOW)


@given(
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["attachment", "inline"]),
    st.integers(NOW + 1, 2**32 - 1),
)
def test_a_links_claims_come_back_as_they_were(
    link_id: bytes, file_id: bytes, generation: int, shown: str, exp: int
) -> None:
    claims = LinkClaims(link_id, file_id, generation, shown, exp)
    token = tokens.sign_link(claims, now=NOW)
    assert tokens.verify_link(token, now=NOW) == claims
    assert len(token) == 95
