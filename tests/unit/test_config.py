"""Settings: every problem in one message, secrets from files, no secret printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.__main__ import EXIT_CONFIG, main
from api.commands import docs
from api.core.config import ELSEWHERE, Config, env_name, load
from api.core.errors import ConfigError
from api.core.settings import declared

SECRETS = {
    "SLUICE_SECRET_KEYS": "first-key-" + "a" * 32 + "\nsecond-key-" + "b" * 32,
    "SLUICE_EDGE_KEY": "edge-key-" + "c" * 32,
    "SLUICE_DATABASE_URL": "mysql://sluice:secret-word@db/sluice",
    "SLUICE_REDIS_URL": "redis://:secret-word@cache/0",
}
GOOD = SECRETS | {"SLUICE_STORAGE_ROOT": "/srv/sluice"}


def problems(environ: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(environ)
    return caught.value.problems


def test_the_required_settings_alone_are_enough() -> None:
    config = load(GOOD)
    assert [key.text for key in config.secret_keys] == ["first-key-" + "a" * 32, "second-key-" + "b" * 32]
    assert config.storage_root == Path("/srv/sluice")
    assert (config.access_ttl, config.user_uploads, config.signup) == (900, 100, "open")


def test_every_missing_setting_is_named_in_one_message() -> None:
    assert [line.split()[0] for line in problems({})] == [
        "SLUICE_SECRET_KEYS",
        "SLUICE_EDGE_KEY",
        "SLUICE_DATABASE_URL",
        "SLUICE_REDIS_URL",
        "SLUICE_STORAGE_ROOT",
    ]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("SLUICE_PUBLIC_URL", "ftp://x", "http: or https:"),
        ("SLUICE_PUBLIC_URL", "http://[", "SLUICE_PUBLIC_URL"),
        ("SLUICE_SECRET_KEYS", "short", "at least 32 ASCII characters"),
        ("SLUICE_SECRET_KEYS", "é" * 40, "at least 32 ASCII characters"),
        ("SLUICE_SECRET_KEYS", " \n ", "at least one key"),
        ("SLUICE_SECRET_KEYS", f"{'a' * 32}\nshort", "at least 32 ASCII characters"),
        ("SLUICE_EDGE_KEY", "short", "at least 32 ASCII characters"),
        ("SLUICE_DATABASE_URL", "postgres://x", "mysql:"),
        ("SLUICE_REDIS_URL", "http://x", "redis: or rediss: or unix:"),
        ("SLUICE_USER_UPLOADS", "0", "between 1 and 1000000"),
        ("SLUICE_USER_UPLOADS", "many", "is a whole number"),
        ("SLUICE_ADDRESS_CONNECTIONS", "65536", "between 1 and 65535"),  # nginx's maximum
        ("SLUICE_USER_UPLOADS", "", "is a whole number"),
        ("SLUICE_STORAGE_ROOT", "var/storage", "absolute"),
        ("SLUICE_SIGNUP", "Open", "open, invite, closed"),
        ("SLUICE_SIGNUP", "invite", "SLUICE_SIGNUP_CODE is missing"),
        ("SLUICE_DEDUP_SCOPE", "none", "global, user"),
        ("SLUICE_REFRESH_TTL", "59", "between 3600 and 31536000"),
        ("SLUICE_TRASH_DAYS", "0", "between 1 and 36500"),
        ("SLUICE_MAX_FILE_SIZE", str(2**63), "between 1 and"),
        ("SLUICE_READY_NETWORKS", "10.0.0.1/8", "host bits"),
        ("SLUICE_WEB_ORIGINS", "https://a.example/", "no path"),
        ("SLUICE_WEB_ORIGINS", "https://a.example:443", "no path"),
        ("SLUICE_WEB_ORIGINS", "https://a.example, A.example", "no path"),
        ("SLUICE_WEB_ORIGINS", "*", "no path"),
        ("SLUICE_LOG_LEVEL", "loud", "debug, info, warning, error"),
    ],
)
def test_a_malformed_setting_is_named_with_its_valid_values(name: str, value: str, says: str) -> None:
    (line,) = problems(GOOD | {name: value})
    assert line.startswith("SLUICE_")
    assert says in line


S3 = {
    "SLUICE_STORAGES": "main:s3",
    "SLUICE_S3_ENDPOINT": "http://rgw:8480/",
    "SLUICE_S3_BUCKET": "bucket",
    "SLUICE_S3_ACCESS_KEY": "a",
    "SLUICE_S3_SECRET_KEY": "s",
}


@pytest.mark.parametrize("name", ["SLUICE_S3_ENDPOINT", "SLUICE_S3_PUBLIC_ENDPOINT"])
@pytest.mark.parametrize("value", ["rgw:8480", "https://", "https://gateway.example/s3", "https://x?y", "ftp://rgw"])
def test_an_s3_endpoint_is_a_host_alone(name: str, value: str) -> None:
    assert load(SECRETS | S3).s3["main"].endpoint == "http://rgw:8480"
    (line,) = problems(SECRETS | S3 | {name: value})
    assert line == f"{name} is a URL that starts with http: or https:, without a path"


@pytest.mark.parametrize(
    ("public_url", "web_origins", "expected"),
    [
        ("https://files.example", "", ("https://files.example",)),
        ("https://Files.example:443/", "", ("https://files.example",)),
        ("http://[::1]:8080", "", ("http://[::1]:8080",)),
        ("https://a.example", "https://b.example http://c.example:81", ("https://b.example", "http://c.example:81")),
        ("https://a.example", "https://b.example,https://b.example", ("https://b.example",)),
    ],
)
def test_pages_come_from_the_public_url_unless_said_otherwise(
    public_url: str, web_origins: str, expected: tuple[str, ...]
) -> None:
    config = load(GOOD | {"SLUICE_PUBLIC_URL": public_url, "SLUICE_WEB_ORIGINS": web_origins})
    assert config.origins == expected
    assert dict(config.in_force())["SLUICE_WEB_ORIGINS"] == ",".join(config.web_origins)


def test_problems_of_every_kind_come_together() -> None:
    found = problems(GOOD | {"SLUICE_SIGNUP": "x", "SLUICE_REFRESH_TTL": "x", "SLUICE_REFESH_TTL": "900"})
    assert [line.split()[0] for line in found] == ["SLUICE_SIGNUP", "SLUICE_REFRESH_TTL", "SLUICE_REFESH_TTL"]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("SLUICE_REFESH_TTL", "; SLUICE_REFRESH_TTL is"),
        ("SLUICE_EDGE_KEY_FIEL", "; SLUICE_EDGE_KEY_FILE is"),
        ("SLUICE_REFRESH_TTL_FILE", "; SLUICE_REFRESH_TTL is"),  # files are for secrets
        ("SLUICE_QQQQQQQQQQQQQQQQ", ""),
    ],
)
def test_an_unknown_setting_is_named_with_the_nearest_one(name: str, suggestion: str) -> None:
    assert problems(GOOD | {name: "1"}) == (f"{name} is not a setting{suggestion}",)


def test_what_gunicorn_reads_and_what_is_not_ours_is_let_be() -> None:
    load(GOOD | {"SLUICE_API_BIND": "unix:/x", "SLUICE_API_WORKERS": "2", "SLUICE_API_THREADS": "8", "HOME": "/"})


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_secret_can_come_from_a_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(GOOD[name] + "\n")
    given = {key: value for key, value in GOOD.items() if key != name} | {f"{name}_FILE": str(path)}
    assert load(given) == load(GOOD)


def test_a_secrets_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    given = {key: value for key, value in GOOD.items() if key != "SLUICE_EDGE_KEY"}
    (line,) = problems(given | {"SLUICE_EDGE_KEY_FILE": str(tmp_path / "none")})
    assert line == f"SLUICE_EDGE_KEY cannot be read from {tmp_path / 'none'}: No such file or directory"


def test_what_is_in_force_names_every_setting_and_shows_no_secret() -> None:
    shown = dict(load(GOOD | {"SLUICE_SIGNUP": "invite", "SLUICE_SIGNUP_CODE": "let-me-in"}).in_force())
    assert set(shown) == {env_name(field.name) for field in declared(Config)}
    text = "\n".join(shown.values())
    for secret in ("first-key", "second-key", "edge-key", "secret-word", "let-me-in"):
        assert secret not in text
    assert {name for name, value in shown.items() if value == "(secret)"} == {
        *SECRETS,
        "SLUICE_SIGNUP_CODE",
        "SLUICE_QUEUE_URL",
    }


def test_the_command_prints_what_is_in_force_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("api.core.config.load.__defaults__", (GOOD,))
    assert main(["config"]) == 0
    printed = capsys.readouterr()
    assert "SLUICE_REFRESH_TTL=2592000" in printed.out
    assert "secret-word" not in printed.out + printed.err


def test_the_command_says_a_line_for_each_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = GOOD | {"SLUICE_SIGNUP": "x", "SLUICE_EDGE_KEY": "hush"}
    monkeypatch.setattr("api.core.config.load.__defaults__", (bad,))
    assert main(["config"]) == EXIT_CONFIG == 2
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.err.splitlines()] == ["SLUICE_EDGE_KEY", "SLUICE_SIGNUP"]
    assert "hush" not in printed.out + printed.err


def test_servers_ignore_settings_of_the_command() -> None:
    assert load(GOOD | {"SLUICE_CLIENT_URL": "https://files.example"}) == load(GOOD)


@pytest.mark.parametrize(
    "name", ["SLUICE_JOB_TRIES", "SLUICE_SWEEP_INTERVAL", "SLUICE_S3_MAIN_SINGLE_PUT_MAX", "SLUICE_OSS_SIGNATURE"]
)
def test_a_setting_that_became_a_constant_is_passed_over_by_name(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert load(GOOD | {name: "7"}).job_tries == 50
    assert [record.getMessage().split()[0] for record in caplog.records] == [name]


def test_a_test_may_set_a_constant_without_a_warning() -> None:
    config = load(GOOD | {"SLUICE_TEST_JOB_TRIES": "7"})
    assert config.job_tries == 7
    assert not [name for name, _ in config.in_force() if "JOB_TRIES" in name]
    assert "between 1 and 1000" in problems(GOOD | {"SLUICE_TEST_JOB_TRIES": "0"})[0]


def test_there_are_few_settings() -> None:
    assert len(docs.settings()) + len(ELSEWHERE) <= 70
