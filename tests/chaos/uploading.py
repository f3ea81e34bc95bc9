"""How a client uploads, and continues after failures; see docs/api.md, "Upload"."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from tests.chaos.caller import Abandoned, Answer, Caller, Json, documented
from tests.chaos.content import Content, part_of
from tests.chaos.ledger import Account, Ledger, Upload
from tests.e2e.client import numbers_of

Call = Callable[..., Answer]
_ENDED: Final = ("UPLOAD_GONE", "UPLOAD_NOT_OPEN", "UPLOAD_NOT_FOUND")
_LONGEST_GATHERING: Final = 10.0
_ROUNDS: Final = 20  # of sending missing parts and completing again


class Bell:
    """Waits before each complete of a multipart upload, so that an aimed fault hits several completes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._gathering = False
        self._here = 0

    def ring(self) -> None:
        """Called before a complete is sent. Waits while a fault gathers completes."""
        with self._changed:
            self._here += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._gathering, _LONGEST_GATHERING)
            self._here -= 1

    def gather(self, count: int, seconds: float) -> int:
        """Releases this many completes at the same time, or those that have arrived by then. Returns their number."""
        with self._changed:
            self._gathering = True
            self._changed.wait_for(lambda: self._here >= count, seconds)
            self._gathering = False
            self._changed.notify_all()
            return self._here


class Uploading:
    """Uploads content, see the module's docstring.

    Args:
        call: a call of the API with the client's token.
    """

    def __init__(self, call: Call, caller: Caller, ledger: Ledger, bell: Bell, over: threading.Event) -> None:
        self._call = call
        self._caller = caller
        self._ledger = ledger
        self._bell = bell
        self._over = over

    def create(self, account: Account, what: Content, name: str) -> Json:
        """Creates an upload, or finds it again."""
        answer = self._call("POST", "/uploads", self._question(what, name))
        self._note(account, answer.body, what, name)
        return answer.body

    def whole(self, account: Account, what: Content, name: str, resumes: str = "") -> bool:
        """Uploads from create to file. Returns False if the gateway reported a final failure.

        Args:
            resumes: the unfinished upload that create must find.
        """
        upload = self.create(account, what, name)
        if resumes and upload["id"] != resumes:
            self._ledger.find("unexpected", f"{name!r} of {account.username}: upload {resumes} was not found again")
        if upload["state"] == "proving":
            path, proof = f"/uploads/{upload['id']}/proof", what.proof(upload["challenge"])
            answer = self._call("POST", path, {"proof": proof, "parts": what.hashes}, ("UPLOAD_NOT_OPEN",))
            upload = self._look(upload) if answer.code else answer.body
        return self._finish(account, what, name, upload)

    def _finish(self, account: Account, what: Content, name: str, upload: Json) -> bool:
        record = self._note(account, upload, what, name)
        for _ in range(_ROUNDS):
            while upload["state"] == "finalizing":
                if self._over.wait(0.1):
                    raise Abandoned
                upload = self._look(upload)
            if upload["state"] == "done":
                record.state = "done"
                self._ledger.acknowledge(account, upload["file"]["id"], name, what)
                return True
            if upload["state"] not in ("uploading", "proving"):
                record.state = "failed"
                self._ledger.count(f"uploads that ended as {upload['state']}: {upload['error']}")
                return False
            self.send(upload, what)
            upload = self._complete(record, what, upload)
        self._ledger.find("stuck", f"{name!r} of {account.username}, upload {upload['id']}: {upload}")
        raise Abandoned

    def _complete(self, record: Upload, what: Content, upload: Json) -> Json:
        record.state = "doubt"
        if what.size > 64 * 1024:
            self._bell.ring()
        path = f"/uploads/{upload['id']}/complete"
        answer = self._call("POST", path, refusals=("PARTS_MISSING", "PART_MISMATCH", *_ENDED))
        if answer.code:
            self._ledger.count(f"completes answered {answer.code}")
        return self._look(upload) if answer.code else answer.body

    def _look(self, upload: Json) -> Json:
        return self._call("GET", f"/uploads/{upload['id']}").body

    def send(self, upload: Json, what: Content, only: int | None = None) -> None:
        """Sends the missing parts, or the first `only` of them."""
        missing = numbers_of(upload["missing"])[:only]
        if not missing:
            return
        path, parts = f"/uploads/{upload['id']}/parts", upload.get("parts") or {}
        if not set(map(str, missing)) <= parts.keys():
            answer = self._call("POST", path, {"parts": what.hashes_of(missing)}, _ENDED)
            parts = {} if answer.code else answer.body["parts"]
        data = what.read()
        for number in missing:
            if part := parts.get(str(number)):
                self._caller.put(part, part_of(data, number))

    def batch(self, account: Account, contents: dict[str, Content]) -> None:
        """Several small ones, by the calls for batches. An upload that the batch refuses continues alone."""
        questions = [self._question(what, name) for name, what in contents.items()]
        items = self._items("/uploads/batch", {"uploads": questions})
        begun = {name: item["upload"] for name, item in zip(contents, items, strict=True) if "upload" in item}
        for name, upload in begun.items():
            self._note(account, upload, contents[name], name)
            if upload["state"] == "uploading":
                self.send(upload, contents[name])
        ids = {upload["id"]: name for name, upload in begun.items() if upload["state"] != "done"}
        for upload_id in ids:
            account.uploads[upload_id].state = "doubt"
        ended = self._items("/uploads/batch/complete", {"ids": list(ids)}) if ids else []
        for name, item in zip(ids.values(), ended, strict=True):
            begun[name] = item.get("upload") or self._look(begun[name])
        for name, what in contents.items():
            if name in begun:
                self._finish(account, what, name, begun[name])
            else:
                self.whole(account, what, name)

    def _items(self, path: str, body: Json) -> list[Json]:
        items: list[Json] = self._call("POST", path, body).body["items"]
        for item in items:
            if "error" in item and (item["status"], item["error"]["code"]) not in documented():
                self._ledger.find("undocumented", f"{path}: {item}")
        return items

    def abort(self, account: Account, what: Content, name: str, parts: int) -> None:
        """Creates, sends this many parts, and aborts. A complete then comes too late."""
        upload = self.create(account, what, name)
        if upload["state"] == "done":
            return
        self.send(upload, what, only=parts)
        record = account.uploads[upload["id"]]
        record.state = "doubt"
        answer = self._call("DELETE", f"/uploads/{upload['id']}")
        record.state = "aborted"
        late = self._call("POST", f"/uploads/{upload['id']}/complete", refusals=_ENDED)
        if answer.body["state"] != "aborted" or late.code != "UPLOAD_NOT_OPEN":
            self._ledger.find("wrong", f"upload {upload['id']} was aborted: {answer.body['state']}, {late}")

    @staticmethod
    def _question(what: Content, name: str) -> Json:
        question: Json = {"name": name, "size": what.size, "digest": what.digest}
        return {**question, "parts": what.hashes_of(what.numbers)} if what.size else question

    def _note(self, account: Account, upload: Json, what: Content, name: str) -> Upload:
        record = account.uploads.setdefault(upload["id"], Upload(upload["id"], name, what))
        if upload["state"] == "done":
            record.state = "done"
            self._ledger.acknowledge(account, upload["file"]["id"], name, what)
        return record
