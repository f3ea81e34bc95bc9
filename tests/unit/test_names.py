"""Names are data: which are refused, and which pass unchanged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.accounts.names import check_username
from api.core.errors import Problem
from api.files.names import check_name, content_type

HOSTILE = {
    "empty": "",
    "blank": "   ",
    "no-break space alone": "\u00a0",
    "300 bytes": "a" * 300,
    "256 bytes": "a" * 256,
    "256 bytes in fewer characters": "ü" * 128,
    "a path upwards": "../x",
    "a path": "a/b",
    "an absolute path": "/etc/passwd",
    "a Windows path": "..\\x",
    "this folder": ".",
    "the folder above": "..",
    "NUL": "a\0b",
    "newline": "a\nb",
    "carriage return": "a\r\nSet-Cookie: x",
    "escape": "\x1b[31mred",
    "delete": "a\x7f",
    "C1 control": "a\x85b",
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
    "right-to-left override": "gpj.\u202eexe",
    "left-to-right isolate": "a\u2066b",
    "left-to-right mark": "a\u200eb",
    "Arabic letter mark": "a\u061cb",
    "lone high surrogate": "a\ud800",
    "lone low surrogate": "\udc00a",
}
FINE = {
    "plain": "a.txt",
    "spaces inside": "a b.txt",
    "leading dot": ".profile",
    "three dots": "...",
    "quotes": "\"a' b`.txt",
    "percent": "%2e%2e%2fx",
    "shell": "$(rm -rf ~);`id`|&",
    "markup": "<script>alert(1)<",
    "emoji": "📦 résumé 👩\u200d👩\u200d👧.pdf",  # joined by ZWJ, which is no direction character
    "Chinese": "报告.docx",
    "Arabic": "تقرير.pdf",
    "Hebrew": "דוח.pdf",
    "combining": "e\u0301",
    "255 bytes": "a" * 255,
    "255 bytes of emoji and letters": "😀" * 63 + "abc",
    "SQL": "'; DROP TABLE file; --",
    "LIKE": "100%_\u005b",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_name_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(Problem) as caught:
        check_name(name)
    assert caught.value.kind.code == "NAME_INVALID"
    assert caught.value.message.startswith("A name")


@pytest.mark.parametrize("name", FINE.values(), ids=FINE.keys())
def test_any_other_name_passes_untouched(name: str) -> None:
    assert check_name(name) == name


@given(st.text(max_size=300))
def test_what_passes_fits_a_column_and_never_is_a_path_or_a_header_line(name: str) -> None:
    try:
        check_name(name)
    except Problem:
        return
    assert 1 <= len(name.encode()) <= 255
    assert not set(name) & {"/", "\\", "\0", "\r", "\n"}
    assert name not in (".", "..")


@pytest.mark.parametrize("name", ["ann", "a.b-c_d", "0ab", "a" * 64])
def test_a_username_is_taken(name: str) -> None:
    assert check_username(name) == name


def test_a_username_is_lowered() -> None:
    assert check_username("Ann") == "ann"


@pytest.mark.parametrize(
    "name", ["", "ab", "a" * 65, "-ab", ".ab", "a b", "ann ", "ann\n", "änn", "a/b", "a@b", "a\0b"]
)
def test_any_other_username_is_refused(name: str) -> None:
    with pytest.raises(Problem) as caught:
        check_username(name)
    assert caught.value.kind.code == "USERNAME_INVALID"


@pytest.mark.parametrize(
    ("given_type", "kept"),
    [
        ("image/png", True),
        ("text/plain; charset=utf-8", True),
        ("application/vnd.ms-excel", True),
        (None, False),
        ("", False),
        ("html", False),
        ("text/html\r\nX: y", False),
        ("text/plain\n", False),
        ('text/plain; charset="x\r\n"', False),
        ("a/" + "b" * 300, False),
        ("téxt/plain", False),
    ],
)
def test_a_media_type_that_cannot_stand_in_a_header_is_plain_bytes(given_type: str | None, kept: bool) -> None:
    assert content_type(given_type) == (given_type if kept else "application/octet-stream")
