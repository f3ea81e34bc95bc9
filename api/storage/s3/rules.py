"""Edits a bucket's lists of rules (CORS, lifecycle) as XML: our rule is added, all other rules stay unchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from api.core.errors import StorageError


def merge(
    read: Callable[[], Element | None], write: Callable[[Element], None], document: Element, rule: Element
) -> str:
    """Puts our rule before the others', for S3 and OSS take the first CORS rule whose origin fits.

    Args:
        document: an empty root element, used if there are no rules yet.
        rule: ours. It replaces the rule of the same ID; if rules have no ID, it equals the rule of the same content.

    Returns:
        A description of the change, for an operator.

    Raises:
        StorageError: something else was read, or the storage has changed others' rules.
    """
    found = read()
    if found is not None and plain(found) != plain(document):
        raise StorageError(f"{plain(found)} came where {plain(document)} was asked for")
    document = document if found is None else found
    ours = [other for other in document if _is_same(other, rule)]
    if [_content(other) for other in ours] == [_content(rule)]:
        return f"(was there, with {len(document) - 1} other rules)"
    for other in ours:
        document.remove(other)
    others = _texts(document)
    for other in document:
        _join_conditions(other)
    document.insert(0, rule)
    write(document)
    after = read()
    if after is None or _texts([other for other in after if not _is_same(other, rule)]) != others:
        raise StorageError("this storage has changed others' rules while it took ours; look at them")
    return f"(written, {len(others)} other rules kept)"


def remove(
    read: Callable[[], Element | None], write: Callable[[Element], None], delete: Callable[[], None], name: str
) -> bool:
    """Removes the rule of this ID. Returns False if there is none. All other rules stay.

    Raises:
        StorageError: the storage has changed others' rules; or it cannot be asked.
    """
    document = read()
    ours = [rule for rule in document if child_text(rule, "ID") == name] if document is not None else []
    if document is None or not ours:
        return False
    for rule in ours:
        document.remove(rule)
    if not len(document):
        delete()
        return True
    others = _texts(document)
    for other in document:
        _join_conditions(other)
    write(document)
    after = read()
    if after is None or _texts(after) != others:
        raise StorageError("this storage has changed others' rules while it gave up ours; look at them")
    return True


def _is_same(rule: Element, ours: Element) -> bool:
    name = child_text(ours, "ID")
    return child_text(rule, "ID") == name if name else _content(rule) == _content(ours)


def _texts(rules: Sequence[Element] | Element) -> list[bytes]:
    return sorted(ElementTree.tostring(rule).strip() for rule in rules)


def _join_conditions(rule: Element) -> None:
    """A lifecycle rule with several conditions, in the form in which S3 takes it.

    RGW answers <Filter><Prefix/><And><Tag/><Tag/></And></Filter>, and understands that as a rule without the prefix.
    """
    holder = child(rule, "Filter")
    if (
        holder is None
        or len(holder) < 2
        or not any(plain(condition) in ("And", "Tag", "Prefix") for condition in holder)
    ):
        return
    both = Element(holder.tag[: -len("Filter")] + "And")
    for condition in list(holder):
        holder.remove(condition)
        both.extend(list(condition) if plain(condition) == "And" else [condition])
    holder.append(both)


def _content(element: Element) -> object:
    """An element's content in a form that does not depend on the order of its children."""
    if len(element):
        return plain(element), tuple(sorted(str(_content(part)) for part in element))
    return plain(element), (element.text or "").strip()


def plain(element: Element) -> str:
    """An element's name without its namespace: some servers leave that out."""
    return element.tag.rpartition("}")[2]


def child(element: Element, name: str) -> Element | None:
    """The first child of that name, in any namespace."""
    return next((found for found in element if plain(found) == name), None)


def child_text(element: Element, name: str) -> str:
    """The text of the first child of that name; empty if there is none."""
    found = child(element, name)
    return (found.text or "") if found is not None else ""
