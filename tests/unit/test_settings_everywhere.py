"""One set of settings: the hand-written parts of docker-compose.yml, .env.example and the edge's templates agree with
the output of `python -m api docs`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from api.core.config import Config, OSSConfig, S3Config
from api.core.settings import declared

CODE = Path(__file__).parents[2]
COMPOSE = (CODE / "docker-compose.yml").read_text()
EXAMPLE = (CODE / ".env.example").read_text()

# (name as a container gets it, default) of every setting of the API; secrets come as files
SETTINGS = {
    f"{prefix}{field.name.upper()}{'_FILE' if field.metadata['secret'] else ''}": field.metadata["default"] or ""
    for prefix, shape in (("SLUICE_", Config), ("SLUICE_S3_", S3Config), ("SLUICE_OSS_", OSSConfig))
    for field in declared(shape)
}
# A worker in a container shares its metrics folder with the APIs; Redis is the stack's and has no password.
NOT_IN_CONTAINERS = {"SLUICE_METRICS_BIND", "SLUICE_REDIS_URL_FILE"}
# Only for the compose file itself: ports, sizes, profiles.
OF_COMPOSE = {"COMPOSE_PROFILES", *re.findall(r"\$\{([A-Z_]+):-", COMPOSE)}


def block(begin: str) -> dict[str, str]:
    """The environment after a line of the compose file: names and values; the indented lines up to the next."""
    _, found, rest = COMPOSE.partition(f"{begin}\n")
    assert found, begin
    lines = re.match(r"(?:[ ]+[A-Z<#].*\n)+", rest)
    assert lines, begin
    return dict(re.findall(r"^ +([A-Z_]+[A-Z0-9_]*): ?(.*)$", lines.group(), re.M))


PASSED_ON = block("x-settings: &settings")
FIXED = block("x-api-environment: &api-environment")
EDGE = block("""    ports: ["${SLUICE_ADDRESS:-0.0.0.0}:${SLUICE_PORT:-8080}:8080"]
    environment:""")
IN_EXAMPLE = dict(re.findall(r"^# ([A-Z0-9_]+)=(.*)$", EXAMPLE, re.M))
OF_EDGE = set(
    subprocess.run(
        [CODE / "scripts/render-nginx", "--variables"], capture_output=True, text=True, check=True
    ).stdout.split()
)


def test_every_setting_reaches_the_containers_of_the_api() -> None:
    assert SETTINGS.keys() - {*PASSED_ON, *FIXED} - NOT_IN_CONTAINERS == set()


def test_settings_that_are_passed_on_have_no_value_in_the_file() -> None:
    assert set(PASSED_ON.values()) == {""}
    assert not PASSED_ON.keys() & FIXED.keys()


def test_the_edge_gets_what_its_templates_need() -> None:
    started = (CODE / "deploy" / "edge").read_text()
    by_entrypoint = {name for name in OF_EDGE if f"{name}=" in started}
    assert set(EDGE) == OF_EDGE - by_entrypoint - {"SLUICE_API_SOCKET"}


def test_edge_and_api_get_the_same_settings() -> None:
    both = EDGE.keys() & {*PASSED_ON, *FIXED}
    assert len(both) > 5
    assert {name: EDGE[name] for name in both} == {name: {**PASSED_ON, **FIXED}[name] for name in both}


def test_what_the_templates_name_is_rendered() -> None:
    named = {
        name for path in (CODE / "nginx").rglob("*.*") for name in re.findall(r"\$\{(SLUICE_\w+)\}", path.read_text())
    }
    made = set(re.findall(r"\b(SLUICE_[A-Z0-9_]+)\b", (CODE / "scripts" / "render-nginx").read_text()))
    assert named <= made


def defaults_of_edge() -> dict[str, str]:
    text = (CODE / "scripts" / "render-nginx").read_text()
    return dict(re.findall(r"^  \[(SLUICE_\w+)\]='?([^'\n]*)'?$", text, re.M))


@pytest.mark.parametrize(("name", "default"), defaults_of_edge().items())
def test_a_default_of_the_edge_is_the_apis(name: str, default: str) -> None:
    assert default == SETTINGS[name]


def test_the_edge_has_a_default_for_what_it_shares_with_the_api() -> None:
    required = {"SLUICE_STORAGE_ROOT", "SLUICE_SECRET_KEYS_FILE", "SLUICE_EDGE_KEY_FILE"}
    assert OF_EDGE & SETTINGS.keys() - required == defaults_of_edge().keys()


def test_the_example_names_everything_that_can_be_set() -> None:
    can_be_set = {*PASSED_ON, *(name for name, value in EDGE.items() if not value), *OF_COMPOSE}
    assert can_be_set - IN_EXAMPLE.keys() == set()
    assert IN_EXAMPLE.keys() - can_be_set == set()


def repeated_keys(text: str) -> list[str]:
    """Duplicate keys in one mapping. Compose v2 rejects such a file, docker-compose uses the last one."""
    found: list[str] = []
    open_mappings: dict[int, set[str]] = {}
    for spaces, key in re.findall(r"^( *)([\w.<-]+):(?: |$)", text, re.M):
        open_mappings = {depth: keys for depth, keys in open_mappings.items() if depth <= len(spaces)}
        keys = open_mappings.setdefault(len(spaces), set())
        if key in keys:
            found.append(key)
        keys.add(key)
    return found


def test_the_compose_file_says_nothing_twice() -> None:
    assert repeated_keys("a: {}\nb:\n  a: 1\n  c: 2\nd:\n  a: 1\n  b: 2\n  a: 3\n") == ["a"]
    assert repeated_keys(COMPOSE) == []


def test_the_example_says_nothing_twice() -> None:
    names = re.findall(r"^# (SLUICE_[A-Z0-9_]+)=", EXAMPLE, re.M)
    assert sorted(names) == sorted(set(names))


def test_the_example_sets_nothing() -> None:
    assert [line for line in EXAMPLE.splitlines() if line and not line.startswith("#")] == []


# Values that a profile needs differ from the defaults on purpose.
OF_PROFILES = re.search(r"--- a Ceph.*?--- the rest", EXAMPLE, re.S)
assert OF_PROFILES
PROFILED = set(re.findall(r"^# ([A-Z0-9_]+)=", OF_PROFILES.group(), re.M))


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() & IN_EXAMPLE.keys() - PROFILED))
def test_the_examples_value_is_the_default(name: str) -> None:
    in_force = re.search(rf"{name}: \$\{{{name}:-(.*)\}}", COMPOSE)
    assert IN_EXAMPLE[name] == (in_force.group(1) if in_force else SETTINGS[name])


@pytest.mark.parametrize("name", sorted(OF_COMPOSE - {"COMPOSE_PROFILES"} - SETTINGS.keys()))
def test_the_examples_value_is_the_compose_files(name: str) -> None:
    assert set(re.findall(rf"\$\{{{name}:-(.*?)\}}", COMPOSE)) == {IN_EXAMPLE[name]}


@pytest.mark.parametrize("name", sorted(OF_COMPOSE - SETTINGS.keys()))
def test_what_the_compose_file_takes_is_documented(name: str) -> None:
    assert f"`{name}`" in (CODE / "docs" / "containers.md").read_text()


def test_no_secret_stands_in_the_compose_file() -> None:
    secret = {name.removesuffix("_FILE") for name in SETTINGS if name.endswith("_FILE")}
    assert (
        set(re.findall(r"(SLUICE_\w+|MARIADB_\w+|RABBITMQ_\w+):", COMPOSE))
        & {
            *(secret - {"SLUICE_REDIS_URL"}),
            "MARIADB_PASSWORD",
            "MARIADB_ROOT_PASSWORD",
            "RABBITMQ_DEFAULT_PASS",
        }
        == set()
    )


def test_public_images_have_pinned_tags() -> None:
    images = re.findall(r"^    image: (\S+)$", COMPOSE, re.M)
    public = [name for name in images if not name.startswith("sluice-")]
    assert len(public) == 3
    assert all(re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+", name) for name in public)


def test_the_stand_ins_of_the_tests_have_the_same_names() -> None:
    named = (CODE / "tests" / "compose" / "images.py").read_text()
    images = re.findall(r"^    image: (\w+:\S+)$", COMPOSE, re.M)
    assert all(f'"{name}"' in named for name in images)


def test_docker_builds_see_everything_that_the_dockerfile_copies() -> None:
    ignored = (CODE / ".dockerignore").read_text()
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (CODE / "deploy" / "Dockerfile").read_text(), re.M)
    for path in " ".join(copied).split():
        assert (CODE / path).exists()
        assert any(f"!{part}" in ignored.splitlines() for part in (path, path.partition("/")[0]))
