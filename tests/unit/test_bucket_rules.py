"""Merging Sluice's rule into a bucket's rules: no other rule is lost, in any form that a storage returns."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from api.core.errors import StorageError
from api.storage.s3.rules import merge

OURS = "<Rule><ID>ours</ID><Days>9</Days></Rule>"


class Storage:
    """Stores a document; ``changes`` is how it alters the document."""

    def __init__(self, document: str | None, changes: str = "") -> None:
        self.document = document
        self.changes = changes
        self.writes = 0

    def read(self) -> Element | None:
        return None if self.document is None else ElementTree.fromstring(self.document)  # noqa: S314

    def write(self, document: Element) -> None:
        self.writes += 1
        self.document = ElementTree.tostring(document).decode().replace(self.changes or "\0", "")

    def merge(self, rule: str = OURS) -> str:
        return merge(self.read, self.write, Element("Rules"), ElementTree.fromstring(rule))  # noqa: S314


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, f"<Rules>{OURS}</Rules>"),
        ("<Rules />", f"<Rules>{OURS}</Rules>"),
        ("<Rules><Rule><ID>a</ID></Rule></Rules>", f"<Rules>{OURS}<Rule><ID>a</ID></Rule></Rules>"),
        ("<Rules><Rule><ID>ours</ID><Days>1</Days></Rule></Rules>", f"<Rules>{OURS}</Rules>"),
        (
            "<Rules><Rule><A>1</A></Rule><Vary>no</Vary></Rules>",
            f"<Rules>{OURS}<Rule><A>1</A></Rule><Vary>no</Vary></Rules>",
        ),
    ],
)
def test_ours_goes_before_the_others_which_stay(before: str | None, after: str) -> None:
    storage = Storage(before)
    storage.merge()
    assert (storage.document, storage.writes) == (after, 1)
    assert storage.merge().startswith("(was there")
    assert storage.writes == 1


def test_the_order_of_children_makes_no_other_rule() -> None:
    storage = Storage("<Rules><Rule><Days> 9 </Days><ID>ours</ID></Rule></Rules>")
    assert storage.merge() == "(was there, with 0 other rules)"


def test_a_rule_without_a_name_is_known_by_its_content() -> None:
    storage = Storage("<Rules><Rule><A>1</A></Rule><Rule><A>2</A></Rule></Rules>")
    assert storage.merge("<Rule><A>2</A></Rule>") == "(was there, with 1 other rules)"
    assert storage.merge("<Rule><A>3</A></Rule>") == "(written, 2 other rules kept)"


@pytest.mark.parametrize(
    ("answered", "sent"),
    [
        (
            "<Prefix>p</Prefix><And><Tag>1</Tag><Tag>2</Tag></And>",
            "<And><Prefix>p</Prefix><Tag>1</Tag><Tag>2</Tag></And>",
        ),
        ("<Prefix>p</Prefix><Tag>1</Tag>", "<And><Prefix>p</Prefix><Tag>1</Tag></And>"),
        ("<And><Prefix>p</Prefix><Tag>1</Tag></And>", "<And><Prefix>p</Prefix><Tag>1</Tag></And>"),
        ("<Prefix>p</Prefix>", "<Prefix>p</Prefix>"),
        # OSS has no And
        ("<Not><Prefix>p</Prefix></Not><ObjectSizeGreaterThan>1</ObjectSizeGreaterThan>",) * 2,
    ],
)
def test_conditions_are_sent_in_the_form_that_means_them_all(answered: str, sent: str) -> None:
    storage = Storage(f"<Rules><Rule><ID>a</ID><Filter>{answered}</Filter></Rule></Rules>")
    try:
        storage.merge()
    except StorageError:  # this storage returns what it was given, unlike RGW
        assert answered != sent
    assert storage.document == f"<Rules>{OURS}<Rule><ID>a</ID><Filter>{sent}</Filter></Rule></Rules>"


def test_a_storage_that_changes_others_rules_is_found_out() -> None:
    storage = Storage("<Rules><Rule><ID>a</ID><Tag>2</Tag></Rule></Rules>", changes="<Tag>2</Tag>")
    with pytest.raises(StorageError, match="has changed others' rules"):
        storage.merge()


def test_something_else_is_not_written_back() -> None:
    storage = Storage("<html><body>sign in</body></html>")
    with pytest.raises(StorageError, match="html came where Rules was asked for"):
        storage.merge()
    assert storage.writes == 0
