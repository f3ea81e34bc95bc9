"""``python -m api docs``: generates tables in documents, and other files, from the code.

In a document, this command replaces the blocks between two marks that name the block. It writes two files as a whole.
``--check`` changes nothing, and fails if a file would change.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from api.core import metrics
from api.core.config import ELSEWHERE, Config, OSSConfig, S3Config
from api.core.errors import EDGE, KINDS, Kind
from api.core.settings import declared
from api.http.route import Access, Route
from api.http.schemas import ErrorAnswer
from api.routes import ROUTES

ROOT: Final = Path(__file__).parents[2]
_MADE: Final = "made by python -m api docs --write:"

# Settings that docker-compose.yml sets itself, or that cannot be set in containers.
FIXED: Final = frozenset(
    {
        "SLUICE_SECRET_KEYS_FILE",
        "SLUICE_EDGE_KEY_FILE",
        "SLUICE_DATABASE_URL_FILE",
        "SLUICE_REDIS_URL_FILE",
        "SLUICE_STORAGE_ROOT",
        "SLUICE_WORKER_HEARTBEAT",
        "SLUICE_METRICS_BIND",
    }
)
PASSED_ON: Final = ("SLUICE_API_WORKERS", "SLUICE_API_THREADS")
"""Settings that are read outside `Config` and that compose passes to the API."""


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser("docs", help="write tables of settings, calls, errors and metrics from the code")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--write", action="store_true", help="write them")
    how.add_argument("--check", action="store_true", help="only report which files would change")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. It needs no settings, since it only reads the code."""
    changed = {path: text for path, text in wanted(ROOT) if text != (path.read_text() if path.exists() else "")}
    for path, text in changed.items():
        if arguments.write:
            path.write_text(text)
        print(f"{path.relative_to(ROOT)} {'written' if arguments.write else 'differs from the code'}")
    if changed and arguments.check:
        print("python -m api docs --write mends it", file=sys.stderr)
        return 1
    return 0


def wanted(root: Path) -> Iterator[tuple[Path, str]]:
    """(path, generated text) of every file."""
    yield root / "lua" / "sluice" / "errors.lua", errors_lua()
    made: dict[str, dict[str, Callable[[], str]]] = {
        "docs/configuration.md": {
            "settings": lambda: _settings_table({"SLUICE_": Config}),
            "storages": lambda: _settings_table({"SLUICE_S3_": S3Config, "SLUICE_OSS_": OSSConfig}),
            "elsewhere": _elsewhere_table,
        },
        "docs/api.md": {"calls": calls_table, "shapes": shapes, "errors": errors_table},
        "docs/operations.md": {"metrics": metrics_table},
        "docker-compose.yml": {"settings": compose_settings},
    }
    for name, blocks in made.items():
        yield root / name, _filled((root / name).read_text(), blocks, name)
    example = root / ".env.example"
    text = example.read_text()
    yield example, _filled(text, {"settings": lambda: example_settings(text)}, ".env.example")


def _filled(text: str, blocks: Mapping[str, Callable[[], str]], name: str) -> str:
    for block, make in blocks.items():
        begin = re.escape(f"{_MADE} {block}")
        pattern = re.compile(rf"(^[^\n]*{begin}[^\n]*\n).*?(^[^\n]*end of {block}[^\n]*$)", re.M | re.S)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"{name} has not one block {block}")
        made = make()
        text = pattern.sub(lambda found, made=made: f"{found[1]}{made}{found[2]}", text)  # type: ignore[misc]
    return text


# -- settings


def settings() -> dict[str, dataclasses.Field[Any]]:
    """Every setting of the API by name. Those of s3 and oss apply to every storage of their kind."""
    shapes = (("SLUICE_", Config), ("SLUICE_S3_", S3Config), ("SLUICE_OSS_", OSSConfig))
    return {f"{prefix}{field.name.upper()}": field for prefix, shape in shapes for field in declared(shape)}


def in_container(name: str, field: dataclasses.Field[Any]) -> str:
    """A setting's name in a container, where secrets are files."""
    return f"{name}_FILE" if field.metadata["secret"] else name


def _shown(default: str | None) -> str:
    if default is None:
        return "required"
    return f"`{default}`" if default else "empty"


_SETTINGS_HEAD = "| setting | default | meaning |\n| --- | --- | --- |\n"


def _settings_table(shapes: Mapping[str, type]) -> str:
    lines = []
    for prefix, shape in shapes.items():
        for field in declared(shape):
            name, meta = f"{prefix}{field.name.upper()}", field.metadata
            secret = f"; secret, also as `{name}_FILE`" if meta["secret"] else ""
            lines.append(f"| `{name}` | {_shown(meta['default'])} | {meta['doc']}{secret} |\n")
    return _SETTINGS_HEAD + "".join(lines)


def _elsewhere_table() -> str:
    rows = (f"| `{name}` | {_shown(default)} | {doc} |\n" for name, (default, doc) in ELSEWHERE.items())
    return _SETTINGS_HEAD + "".join(rows)


def _passed_on() -> dict[str, str]:
    """Names and defaults of the settings that .env may set for the API's containers."""
    found = {in_container(name, field): field.metadata["default"] or "" for name, field in settings().items()}
    found = {name: default for name, default in found.items() if name not in FIXED}
    return found | {name: ELSEWHERE[name][0] for name in PASSED_ON}


def compose_settings() -> str:
    """The settings that docker-compose.yml passes on if .env or the shell sets them."""
    return "".join(f"  {name}:\n" for name in _passed_on())


def example_settings(text: str) -> str:
    """The settings that the rest of .env.example does not contain, with their defaults."""
    begin = text.index(f"{_MADE} settings")
    end = text.index("end of settings", begin)
    named = set(re.findall(r"^# ([A-Z0-9_]+)=", text[:begin] + text[end:], re.M))
    return "".join(f"# {name}={default}\n" for name, default in _passed_on().items() if name not in named)


# -- errors


def errors_table() -> str:
    """Every error by status and code, and which part sends it."""
    lines = [
        f"| {kind.status} | `{kind.code}` | {kind.message} | {'both' if len(kind.by) == 2 else ''.join(kind.by)} |\n"
        for kind in sorted(KINDS, key=lambda kind: (kind.status, kind.code))
    ]
    return "| status | code | meaning | said by |\n| --- | --- | --- | --- |\n" + "".join(lines)


def errors_lua() -> str:
    """The edge's table of errors, as Lua."""
    lines = [_lua(kind) for kind in KINDS if kind.by >= EDGE]
    return (
        f"--- Every error that the edge sends: status, message, Retry-After;  {_MADE} errors.\n"
        "-- The table itself is in api/core/errors.py.\n\nreturn {\n" + "".join(lines) + "}\n"
    )


def _lua(kind: Kind) -> str:
    later = f", {kind.retry_after}" if kind.retry_after else ""
    return f'    {kind.code} = {{ {kind.status}, "{kind.message}"{later} }},\n'


# -- calls


def calls_table() -> str:
    """Every API call for clients."""
    lines = [_call(route) for route in ROUTES if route.access is not Access.EDGE]
    return "| call | who | answer |\n| --- | --- | --- |\n" + "".join(lines)


def _call(route: Route) -> str:
    takes = ""
    if route.body:
        takes = f" `{{{', '.join(_members(route.body))}}}`"
    elif route.query:
        takes = f" `?{'&'.join(route.query.__struct_encode_fields__)}`"
    status = "" if route.status[0] == 200 else f"{route.status[0]}: "
    said = " ".join(f"{route.summary} {route.description}".split()).replace("|", "\\|")
    who = {Access.PUBLIC: "anyone", Access.BEARER: "users", Access.ADMIN: "administrators"}[route.access]
    return f"| `{route.method} {route.path}`{takes} | {who} | {status}{said} |\n"


def shapes() -> str:
    """Every answer's members, with the words that a member may be."""
    found = {shape for route in ROUTES if route.access is not Access.EDGE for shape in route.answers} | {ErrorAnswer}
    ordered = sorted(found, key=lambda shape: shape.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template="{name}")
    lines = [
        textwrap.fill(
            f"{name.removesuffix('Answer'):12} {{{', '.join(map(_member, schema['properties'].items()))}}}",
            width=120,
            subsequent_indent=" " * 14,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, schema in sorted(components.items())
        if name != "ErrorAnswer"
    ]
    return "```\n" + "\n".join(lines) + "\n```\n"


def _member(member: tuple[str, Mapping[str, Any]]) -> str:
    name, schema = member
    options = schema.get("anyOf", [schema])
    (said,) = [each for each in options if each.get("type") != "null"][:1]
    several = "[]" if said.get("type") == "array" else ""
    inner = said.get("items") or {} if several else said
    shape = inner.get("$ref", "").removesuffix("Answer")
    words = "|".join(str(word) if word is not True else "true" for word in inner.get("enum", ()))
    nothing = " or null" if {"type": "null"} in options else ""
    kind = inner.get("type", "") if several or nothing else ""
    text = f"{words or shape or kind}{several}{nothing}".replace("array[]", "[n, n][]")
    return f"{name}: {text}" if text else name


def _members(shape: type[msgspec.Struct]) -> list[str]:
    return [f"{field.encode_name}{'' if field.required else '?'}" for field in msgspec.structs.fields(shape)]


# -- metrics


def metrics_table() -> str:
    """Every metric of the API and the workers."""
    lines = [f"| `{name}` | {kind} | {', '.join(labels)} | {text} |\n" for name, kind, labels, text in metrics.DECLARED]
    return "| figure | kind | labels | meaning |\n| --- | --- | --- | --- |\n" + "".join(lines)
