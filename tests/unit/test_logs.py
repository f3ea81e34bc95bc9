"""Log lines: one JSON object each, with the request's id, without secrets."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from api.core import logs


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The lines that are written to stderr, with logging set up as in a Sluice process."""
    before = logging.root.handlers[:], logging.root.level
    captured = io.StringIO()
    monkeypatch.setattr(sys, "stderr", captured)
    logs.configure("api", "info")
    yield captured
    logging.root.handlers[:], logging.root.level = before


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_whatever_the_text_holds(stream: io.StringIO) -> None:
    logging.getLogger("api.x").info('two\nlines, "quotes" and \x1b[31m', extra={"size": 3, "id": b"\xff", "what": {1}})
    (line,) = lines(stream)
    assert line["message"] == 'two\nlines, "quotes" and \x1b[31m'
    assert (line["level"], line["component"], line["logger"], line["size"]) == ("info", "api", "api.x", 3)
    assert line["time"].endswith("+00:00")


def test_a_line_carries_the_requests_id_and_only_within_it(stream: io.StringIO) -> None:
    logs.request_id.set("")  # set by an earlier test of this thread
    token = logs.request_id.set("abc123")
    try:
        logging.getLogger("api").warning("inside")
    finally:
        logs.request_id.reset(token)
    logging.getLogger("api").warning("outside")
    inside, outside = lines(stream)
    assert inside["request_id"] == "abc123"
    assert "request_id" not in outside


def test_an_exception_stays_on_its_line(stream: io.StringIO) -> None:
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("api").exception("failed")
    (line,) = lines(stream)
    assert "ValueError: boom" in line["exception"]


def test_what_is_below_the_level_is_left_out(stream: io.StringIO) -> None:
    logging.getLogger("api").debug("quiet")
    assert stream.getvalue() == ""
