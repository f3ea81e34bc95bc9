"""Transfer policies: every accepted spelling, and every rejected one."""

from __future__ import annotations

import pytest

from api.core.config import load
from api.core.errors import ConfigError
from api.core.policies import Policy, policies

MAIN = Policy("main", "archive", move=False, after=0, keep=0)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        (" ; ", ()),
        ("replicate:main>archive", (MAIN,)),
        ("replicate:main>archive after 0s", (MAIN,)),
        ("replicate: main → archive after 0", (MAIN,)),
        ("replicate:main->archive after 0d;", (MAIN,)),
        ("move:local>main after 90m", (Policy("local", "main", move=True, after=5400, keep=0),)),
        ("move:local>main keep 7d", (Policy("local", "main", move=True, after=0, keep=604_800),)),
        (
            "replicate:main>archive; move:local>main after 1h keep 30",
            (MAIN, Policy("local", "main", move=True, after=3600, keep=30)),
        ),
        (
            "replicate:a>b;replicate:b>a",  # two storages with the same content
            (Policy("a", "b", move=False, after=0, keep=0), Policy("b", "a", move=False, after=0, keep=0)),
        ),
    ],
)
def test_policies_are_read(text: str, found: tuple[Policy, ...]) -> None:
    assert policies(text) == found
    assert policies("; ".join(map(str, found))) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("copy:a>b", "is not like"),
        ("replicate:a", "is not like"),
        ("replicate:a>b after", "is not like"),
        ("replicate:a>b later 1h", "is not like"),
        ("replicate:a>b after 1w", "a time such as"),
        ("replicate:a>b after -1", "a time such as"),
        ("move:a>b keep 4000d", "a time such as"),
        ("replicate:a>a", "itself"),
        ("replicate:a>b keep 1h", "keep is for a move"),
        ("replicate:a>b; replicate:a>b after 1h", "twice"),
        ("move:a>b; move:b>a", "come back to a"),
        ("move:a>b; replicate:b>c; replicate:c>a", "come back to a"),
    ],
)
def test_what_cannot_work_is_said(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        policies(text)


def test_one_start_names_every_problem(tmp_path: object) -> None:
    environ = {
        "SLUICE_SECRET_KEYS": "k" * 64,
        "SLUICE_EDGE_KEY": "e" * 64,
        "SLUICE_DATABASE_URL": "mysql://sluice@localhost/sluice",
        "SLUICE_REDIS_URL": "redis://localhost",
        "SLUICE_STORAGE_ROOT": str(tmp_path),
    }
    with pytest.raises(ConfigError) as caught:
        load(environ | {"SLUICE_TRANSFER_POLICIES": "copy:a>b; replicate:a>a; move:a>b after soon"})
    assert [word in str(caught.value) for word in ("copy:a>b", "itself", "soon")] == [True] * 3
    with pytest.raises(ConfigError) as caught:
        load(environ | {"SLUICE_TRANSFER_POLICIES": "replicate:local>away; replicate:gone>local"})
    assert len(caught.value.problems) == 2
    shown = load(environ | {"SLUICE_TRANSFER_POLICIES": ""}).in_force()
    assert ("SLUICE_TRANSFER_POLICIES", "") in shown
