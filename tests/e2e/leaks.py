"""Secrets that no log may contain: every token, signature and password of a run."""

import re
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_WORD = re.compile(r"[A-Za-z0-9_-]{12,}")


class Secrets:
    """Collects secrets while tests run, and looks for them in logs afterwards."""

    def __init__(self) -> None:
        self._words: set[str] = set()
        self.tokens = 0

    def new_password(self) -> str:
        password = f"pw-{secrets.token_hex(12)}"
        self._words.add(password)
        return password

    def add_token(self, token: str) -> None:
        """A token's claims and its signature, or all of a sealed one; each alone is a leak."""
        pieces = token.split(".")
        self._words.update((pieces[0], pieces[-1]))
        self.tokens += 1

    def add_answer(self, answer: Any) -> None:
        """The tokens in an API response."""
        if isinstance(answer, list):
            for member in answer:
                self.add_answer(member)
        elif isinstance(answer, dict):
            for key, member in answer.items():
                if key in ("access_token", "refresh_token"):
                    self.add_token(member)
                elif key == "url":
                    self.add_token(urlsplit(member).path.split("/")[2])
                else:
                    self.add_answer(member)

    def add_keys(self, folder: Path) -> None:
        """The stack's secret keys."""
        for name in ("token_keys", "edge_key"):
            self._words.update((folder / name).read_text().split())

    def found_in(self, text: str) -> set[str]:
        """Secrets that a text contains as words."""
        return self._words & set(_WORD.findall(text))
