"""Calls to one S3 bucket as a whole: signed by our own SigV4, so that its XML comes and goes unchanged.

botocore parses a bucket's rules into its shapes and would lose elements that these do not know (RGW returns a lifecycle
rule with two tags in a form of which botocore keeps one tag: if it wrote the rule back, it would delete more objects).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from api.core.config import S3Config
from api.core.errors import StorageError
from api.core.settings import origin
from api.storage.http import Answer, ask
from api.storage.s3.sigv4 import Credentials, Presigner

NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
_LIFE: Final = 900
"""Seconds that a URL lives: more than clocks that are a little off may differ."""
_TIMEOUT: Final = 30.0
"""Seconds: RGW takes 10 for a change of a bucket's settings while one of its fellows has just died."""

ElementTree.register_namespace("", NAMESPACE)


class Address:
    """Where a bucket's objects are on one endpoint: scheme and host, and the path of a key."""

    def __init__(self, settings: S3Config, endpoint: str) -> None:
        # clients leave a scheme's own port out of the Host header, which is signed
        scheme, _, host = origin(endpoint).partition("://")
        self.base = f"{scheme}://{settings.bucket}.{host}" if settings.virtual_hosted else f"{scheme}://{host}"
        self._bucket = settings.bucket
        self._prefix = "/" if settings.virtual_hosted else f"/{settings.bucket}/"

    def path(self, object_key: str) -> str:
        return self._prefix + object_key

    def copy_source(self, object_key: str) -> str:
        """How x-amz-copy-source names an object, whatever the host is."""
        return f"/{self._bucket}/{object_key}"


class BucketError(StorageError):
    """S3 said no.

    Attributes:
        code: the S3 error code, such as NoSuchBucket; empty if the answer names none.
        region: the one that S3 would rather have seen signed; mostly empty.
    """

    def __init__(self, answer: Answer) -> None:
        error = _parse(answer.body)
        self.status = answer.status
        self.code = _text(error, "Code")
        self.region = _text(error, "Region")
        super().__init__(f"{answer.status} {self.code}".strip())


class Bucket:
    """One bucket on its internal endpoint.

    Args:
        now: epoch seconds.
    """

    def __init__(self, settings: S3Config, credentials: Credentials, now: Callable[[], float]) -> None:
        self.name = settings.bucket
        self.region = settings.region
        self._address = Address(settings, settings.endpoint)
        self._credentials = credentials
        self._now = now

    def call(
        self,
        method: str,
        query: str = "",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        object_key: str = "",
    ) -> Answer:
        """A signed call; an answer of 300 or more is raised.

        Args:
            query: encoded and sorted, as ``lifecycle=``.
            headers: in lower case; all of them are signed.

        Raises:
            BucketError: S3 said no.
            StorageUnavailable: it said nothing.
        """
        sent = dict(headers or {})
        if body:
            sent["content-md5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        presigner = Presigner(
            self._credentials,
            method,
            self._address.base,
            self._address.path(object_key),
            tuple(sorted(sent)),
            int(self._now()),
            _LIFE,
        )
        answer = ask(method, presigner.sign(query, sent), sent, body, _TIMEOUT)
        if answer.status >= 300:
            raise BucketError(answer)
        return answer

    def is_rgw(self) -> bool:
        """Whether the server is a Ceph RGW, which numbers its responses in a special way. Raises BucketError."""
        return self.call("GET", "max-uploads=1&uploads=").headers.get("x-amz-request-id", "").startswith("tx0")

    def create(self, place: Element | None) -> None:
        """Makes the bucket. Raises BucketError."""
        self.call("PUT", body=b"" if place is None else ElementTree.tostring(place, encoding="utf-8"))

    def read(self, configuration: str) -> Element | None:
        """A configuration of the bucket, such as ``cors``; None if it has none."""
        try:
            return _parse(self.call("GET", f"{configuration}=").body)
        except BucketError as ex:
            # NoSuchCORSConfiguration, NoSuchLifecycleConfiguration, NoSuchPublicAccessBlockConfiguration
            if ex.status == 404 and ex.code.endswith("Configuration"):
                return None
            raise

    def remove(self, configuration: str) -> None:
        """Takes a configuration away as a whole."""
        self.call("DELETE", f"{configuration}=")

    def write(self, configuration: str, document: Element) -> None:
        """Replaces a configuration as a whole."""
        self.call("PUT", f"{configuration}=", ElementTree.tostring(document, encoding="utf-8"))


def error_code(answer: Answer) -> str:
    """The S3 error code of a refusal, such as NoSuchUpload; empty if the answer names none."""
    return _text(_parse(answer.body), "Code")


def _parse(body: bytes) -> Element | None:
    try:
        return ElementTree.fromstring(body)  # noqa: S314 - our own storage's answer
    except ElementTree.ParseError:
        return None


def _text(element: Element | None, name: str) -> str:
    return (element.findtext(name) if element is not None else None) or ""


def named(name: str) -> str:
    """An element's name in S3's namespace."""
    return f"{{{NAMESPACE}}}{name}"
