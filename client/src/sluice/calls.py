"""The calls of the HTTP API that the client makes, by name; docs/api.md says what each does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from sluice.errors import APIError
from sluice.models import File, Link, SignedPart, Upload, User, signed_parts
from sluice.session import Session
from sluice.transport import Repeat, Transport

PAGE = 500
_MOST_ETAGS = 1000
"""Parts up to which a server asks for them: it lists those of larger uploads itself."""


class Calls:
    """One user's calls. Each raises APIError, NetworkError, SignInNeeded."""

    def __init__(self, transport: Transport, session: Session) -> None:
        self.transport = transport
        self.session = session

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, repeat: Repeat = Repeat.SAFE
    ) -> tuple[int, dict[str, Any]]:
        """Makes any call with the user's token. If the server refuses the token, it is renewed once."""
        token = self.session.token()
        try:
            return self.transport.call(method, path, body, token, repeat)
        except APIError as ex:
            if ex.status != 401:
                raise
        return self.transport.call(method, path, body, self.session.renew(token), repeat)

    # -- accounts

    def sign_up(self, username: str, password: str, code: str | None) -> User:
        body = {"username": username, "password": password, **({"code": code} if code else {})}
        return User.of(self.transport.call("POST", "/users", body, repeat=Repeat.UNSENT)[1])

    def me(self) -> User:
        return User.of(self.call("GET", "/users/me")[1])

    # -- uploads

    def create(
        self,
        name: str,
        size: int,
        digest: str | None = None,
        resume_key: str | None = None,
        content_type: str | None = None,
        parts: Mapping[int, str] | None = None,
    ) -> Upload:
        """A new upload, or the same unfinished one."""
        body: dict[str, Any] = {"name": name, "size": size}
        more = {"digest": digest, "resume_key": resume_key, "content_type": content_type}
        body.update({key: value for key, value in more.items() if value is not None})
        if parts:
            body["parts"] = _numbered(parts)
        status, answer = self.call("POST", "/uploads", body)
        return Upload.of(answer, found=status == 200)

    def create_many(self, wanted: Sequence[tuple[str, int, str, Mapping[int, str], str | None]]) -> list[Upload | None]:
        """New uploads, or the same unfinished ones; None for what is refused.

        Args:
            wanted: name, size, digest, part hashes, content type of each.
        """
        uploads = [
            {"name": name, "size": size, "digest": digest, "parts": _numbered(parts)}
            | ({} if content_type is None else {"content_type": content_type})
            for name, size, digest, parts, content_type in wanted
        ]
        return _uploads(self.call("POST", "/uploads/batch", {"uploads": uploads})[1])

    def resize(self, upload: Upload, size: int) -> Upload:
        """Another size for an upload of a stream."""
        return Upload.of(self.call("PATCH", f"/uploads/{upload.id}", {"size": size})[1])

    def complete_many(self, ids: Sequence[str]) -> list[Upload | None]:
        """Ends uploads; None for what is refused."""
        return _uploads(self.call("POST", "/uploads/batch/complete", {"ids": ids})[1])

    def prove(self, upload: Upload, proof: str, hashes: Sequence[str]) -> Upload:
        """Sends the proof for a challenge. The server accepts one proof per challenge."""
        body = {"proof": proof, "parts": list(hashes)}
        return Upload.of(self.call("POST", f"/uploads/{upload.id}/proof", body, Repeat.UNSENT)[1])

    def sign(self, upload: Upload, parts: Mapping[int, str]) -> dict[int, SignedPart]:
        """URLs for parts; one that the storage has may be left out."""
        return signed_parts(self.call("POST", f"/uploads/{upload.id}/parts", {"parts": _numbered(parts)})[1]["parts"])

    def upload(self, upload_id: str) -> Upload:
        return Upload.of(self.call("GET", f"/uploads/{upload_id}")[1])

    def uploads(self, state: str | None = None) -> Iterator[Upload]:
        for item in self._pages("/uploads", {"state": state} if state else {}):
            yield Upload.of(item)

    def complete(self, upload: Upload, etags: Mapping[int, str] | None = None) -> Upload:
        """Completes an upload. If the ETags of all parts are given, the server need not list the parts."""
        body = {"etags": _numbered(etags)} if etags and len(etags) == upload.part_count <= _MOST_ETAGS else None
        return Upload.of(self.call("POST", f"/uploads/{upload.id}/complete", body)[1])

    def abort(self, upload_id: str) -> Upload:
        return Upload.of(self.call("DELETE", f"/uploads/{upload_id}")[1])

    # -- files

    def files(
        self, text: str | None = None, digest: str | None = None, order: str = "name", trashed: bool = False
    ) -> Iterator[File]:
        """Files, page after page; ``text`` is part of the name."""
        query = {"order": order, **({"q": text} if text else {}), **({"digest": digest} if digest else {})}
        if trashed:
            query["trashed"] = "true"
        for item in self._pages("/files", query):
            yield File.of(item)

    def file(self, file_id: str) -> File:
        return File.of(self.call("GET", f"/files/{file_id}")[1])

    def rename(self, file_id: str, name: str) -> File:
        return File.of(self.call("PATCH", f"/files/{file_id}", {"name": name})[1])

    def trash(self, file_id: str) -> None:
        self.call("DELETE", f"/files/{file_id}")

    def restore(self, file_id: str) -> File:
        return File.of(self.call("POST", f"/files/{file_id}/restore")[1])

    def unlink(self, file_id: str) -> None:
        self.call("DELETE", f"/files/{file_id}/links")

    def change_password(self, current: str, new: str) -> None:
        """Not repeated once it may have arrived: by then the current password is another."""
        self.call("PATCH", "/users/me", {"password": new, "current_password": current}, Repeat.UNSENT)

    def link(self, file_id: str, expires_in: int | None = None, disposition: str | None = None) -> Link:
        body = {"expires_in": expires_in, "disposition": disposition}
        given = {key: value for key, value in body.items() if value is not None}
        return Link.of(self.call("POST", f"/files/{file_id}/links", given)[1])

    def _pages(self, path: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            parameters = {**query, "limit": str(PAGE), **({"cursor": cursor} if cursor else {})}
            _, page = self.call("GET", f"{path}?{urlencode(parameters)}")
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return


def _uploads(answer: Mapping[str, Any]) -> list[Upload | None]:
    """The items of an answer for several uploads."""
    return [
        Upload.of(item["upload"], found=item["status"] == 200) if "upload" in item else None for item in answer["items"]
    ]


def _numbered(parts: Mapping[int, str]) -> dict[str, str]:
    return {str(number): sha256 for number, sha256 in parts.items()}
