"""Keys that change while nginx runs."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from tests.nginx.edge import Edge
from tests.nginx.stub_api import wait_for
from tests.vectors import make_tokens

BLOB = "b" * 32
NEW = hashlib.sha256(b"new").hexdigest()


def write(edge: Edge, *keys: str) -> None:
    path = edge.folder / "token_keys"
    unfinished = path.with_suffix(".new")
    unfinished.write_text("".join(f"{key}\n" for key in keys))
    os.replace(unfinished, path)


def link(key: str, **claims: object) -> str:
    return f"/d/{make_tokens.sign_claims('link', {**make_tokens.CLAIMS['link'], 'file': BLOB, **claims}, [key])}/x"


def await_all(edge: Edge, path: str, status: int) -> None:
    """Waits until every worker returns this status: a hundred responses in a row."""
    wait_for(lambda: all(edge.get(path).status == status for _ in range(100)), f"{status} from all workers")


def test_a_key_is_added_and_another_retired(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge()
    edge.store(BLOB, b"content")
    old, new = make_tokens.KEYS[-1], link(NEW)
    cached = link(old)
    assert [edge.get(cached).status for _ in range(20)] == [200] * 20
    assert edge.get(new).status == 403
    write(edge, old, f"{NEW} from=4000000000")
    await_all(edge, new, 200)
    assert [edge.get(cached).status for _ in range(20)] == [200] * 20
    write(edge, NEW)
    # although every worker has verified it before
    await_all(edge, cached, 403)
    assert edge.get(cached).code == "LINK_INVALID"
    assert edge.get(new).status == 200


def test_a_file_that_makes_no_sense_ends_no_key(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge()
    edge.store(BLOB, b"content")
    good = link(make_tokens.KEYS[-1])
    (edge.folder / "token_keys").write_text("")
    wait_for(lambda: "there is no key" in edge.error_log.read_text(), "line in the error log")
    (edge.folder / "token_keys").write_text("half a key")
    wait_for(lambda: "holds a key of less than" in edge.error_log.read_text(), "line in the error log")
    Path(edge.folder / "token_keys").unlink()
    wait_for(lambda: "cannot be read again" in edge.error_log.read_text(), "line in the error log")
    assert edge.get(good).status == 200
    assert "half a key" not in edge.error_log.read_text()
