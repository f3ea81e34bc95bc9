"""SLUICE_TIERS: accepted values, and that an error names every problem."""

from __future__ import annotations

import pytest

from api.core.config import load
from api.core.tiers import Tier, document, parse, show
from tests.unit.test_config import GOOD, problems


def test_nothing_is_the_built_in_default() -> None:
    assert parse("") == {"default": Tier()}
    assert Tier().rate == Tier().daily == Tier().monthly == 0


def test_a_tier_has_its_limits_and_the_rest_of_default() -> None:
    tiers = parse(
        "default:connections=16; free:rate=4M,connections=8,api=20/40,part=50/100,download=0.5/40,daily=10G,monthly=1T;"
        " anonymous: rate=64K ; share:"
    )
    assert tiers["default"] == Tier(connections=16)
    assert tiers["free"] == Tier(8, 4 * 2**20, (20, 40), (50, 100), (0.5, 40), 10 * 2**30, 2**40)
    assert tiers["anonymous"] == Tier(connections=16, rate=65536)
    assert tiers["share"] == tiers["default"]


def test_nought_is_no_limit() -> None:
    tier = parse("free:connections=0,api=0,rate=0")["free"]
    assert (tier.connections, tier.api, tier.rate) == (0, (0, 0), 0)


@pytest.mark.parametrize(
    "text", ["", "free:rate=4M,api=20/40,daily=10G", "default:api=0;a:download=0.25/7,part=1000000/2000000;b:"]
)
def test_what_is_shown_can_be_read_again(text: str) -> None:
    assert parse(show(parse(text))) == parse(text)
    assert dict(load(GOOD | {"SLUICE_TIERS": text}).in_force())["SLUICE_TIERS"] == show(parse(text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Free:rate=1", "'Free' is no name"),
        (":rate=1", "is no name"),
        ("a:rate=1;a:rate=2", "a is there twice"),
        ("a:rate", "a: rate is none of connections=…"),
        ("a:speed=1", "a: speed=1 is none of connections=…"),
        ("a:rate=1,rate=2", "a: rate is there twice"),
        ("a:rate=4m", "a: rate is a number of bytes"),
        ("a:rate=-1", "a: rate is a number of bytes"),
        ("a:rate=1.5M", "a: rate is a number of bytes"),
        ("a:connections=4K", "a: connections is a whole number"),
        ("a:api=20", "a: api is requests per second"),
        ("a:api=0/5", "a: api has a rate and a burst above 0"),
        ("a:api=5/0", "a: api has a rate and a burst above 0"),
        ("a:part=1/2/3", "a: part is requests per second"),
    ],
)
def test_a_problem_is_named(text: str, says: str) -> None:
    (line,) = problems(GOOD | {"SLUICE_TIERS": text})
    assert line.startswith("SLUICE_TIERS has problems: ")
    assert says in line


def test_every_problem_is_named_in_one_message() -> None:
    (line,) = problems(GOOD | {"SLUICE_TIERS": "A:; b:rate=x,api=y; b:"})
    assert line.count(";") == 3


def test_the_version_changes_with_the_content_for_edges() -> None:
    versions = [document(parse(text), flush=flush)[0] for text in ("", "a:rate=1", "a:rate=2") for flush in (1, 2)]
    assert len(set(versions)) == 6
    assert document(parse("a:rate=1"), flush=1)[0] == versions[2]
