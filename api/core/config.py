"""The settings, each defined once: name, default, meaning, check.

Every setting is an environment variable ``SLUICE_<NAME>``; the secret ones can also be given as a file by
``SLUICE_<NAME>_FILE``. `load` collects every problem before it gives up, so that one start names them all.

Settings of a storage of kind s3 are ``SLUICE_S3_<NAME>``, for all of that kind, or ``SLUICE_S3_<STORAGE>_<NAME>`` for
the one called so; for oss likewise.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from api.core import lifetimes
from api.core.errors import ConfigError
from api.core.keys import Key, parse
from api.core.policies import Policy, policies, unknown
from api.core.settings import (
    Reader,
    bind,
    constant,
    declared,
    flag,
    folder,
    host,
    integer,
    names,
    networks,
    one_of,
    optional,
    origin,
    origins,
    pairs,
    root_url,
    secret,
    setting,
    storages,
    text,
    url,
)
from api.core.tiers import DEFAULT, Tier
from api.core.tiers import parse as parse_tiers
from api.core.tiers import show as show_tiers

_log = logging.getLogger(__name__)

MIB = 1024**2
TIB = 1024**4


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Config:
    """Where a bucket is, and who we are there.

    Attributes:
        endpoint: as the API, the worker and the edge reach it.
        public_endpoint: as clients reach it; if it is empty, clients use ``endpoint``.
    """

    endpoint: str = setting(root_url, "Where the API and the edge reach the storage")
    public_endpoint: str = setting(optional(root_url), "The address for clients, if it differs", "")
    bucket: str = setting(text, "The bucket")
    access_key: str = setting(text, "The access key", secret=True)
    secret_key: str = setting(text, "The secret key", secret=True)
    session_token: str = setting(text, "The session token of temporary keys", "", secret=True)
    region: str = setting(text, "The region that signatures name", "us-east-1")
    virtual_hosted: bool = setting(flag, "1: the bucket is the host's first label, not the path's", "0")
    via_edge: bool = setting(flag, "1: clients send parts through the edge, not straight to the storage", "0")
    single_put_max: int = 8 * MIB  # bytes up to which a file is one PUT through the edge; 0: none


@dataclass(frozen=True, slots=True, kw_only=True)
class OSSConfig:
    """A bucket of Aliyun OSS."""

    endpoint: str = setting(url("http", "https"), "Where the API and the edge reach OSS, without the bucket")
    public_endpoint: str = setting(url("http", "https", ""), "The address for clients, if it differs", "")
    bucket: str = setting(text, "The bucket")
    access_key: str = setting(text, "The access key id", secret=True)
    secret_key: str = setting(text, "The access key secret", secret=True)
    session_token: str = setting(text, "The security token of temporary keys", "", secret=True)
    region: str = setting(text, "The region, such as cn-hangzhou (not oss-cn-hangzhou)")
    signature: str = "v4"  # older regions still accept v1, but no deployment needs it


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings in force: one attribute per setting. Its variable has the prefix ``SLUICE_`` and is upper case."""

    public_url: str = setting(url("http", "https"), "Where clients reach the gateway", "http://127.0.0.1:8080")
    web_origins: tuple[str, ...] = setting(
        origins,
        "Where pages come from that send parts from browsers, such as `https://a.example,https://b.example:8443`;"
        " empty: SLUICE_PUBLIC_URL's origin",
        "",
    )
    secret_keys: tuple[Key, ...] = setting(parse, "Keys that sign tokens, oldest first", secret=True)
    edge_key: str = setting(secret, "What the edge shows to the API's internal calls", secret=True)
    database_url: str = setting(url("mysql"), "mysql://user:password@host/name?unix_socket=…", secret=True)
    redis_url: str = setting(url("redis", "rediss", "unix"), "redis://… or unix:///…", secret=True)
    queue_url: str = setting(
        optional(url("redis", "rediss", "unix", "amqp", "amqps")),
        "The queue of jobs, redis://…, unix:///… or amqp://…; empty: SLUICE_REDIS_URL",
        "",
        secret=True,
    )
    storages: Mapping[str, str] = setting(storages, "name:kind of each storage; the first takes new uploads", "local")
    tiers: Mapping[str, Tier] = setting(
        parse_tiers, "What tiers allow: name:limit=value,limit=value; name:… (docs/edge.md)", ""
    )
    link_tier: str = setting(one_of("owner", "anonymous"), "Whose tier downloads by link have", "owner")
    signup_rate: int = setting(integer(1, 10**6), "Sign-ups per address per hour", "60")
    signin_rate: int = setting(
        integer(1, 10**6), "Sign-ins per address per minute, right or wrong; the same number of token renewals", "120"
    )
    address_rate: int = setting(
        integer(1, 10**6), "Requests per second per client address; the burst is twice that", "2000"
    )
    address_connections: int = setting(integer(1, 65535), "Concurrent requests per client address", "1000")
    tier_storages: Mapping[str, str] = setting(pairs, "tier:name where a tier's new uploads go elsewhere", "")
    storage_root: Path | None = setting(folder, "The folder of the storage of kind local", "")
    signup: str = setting(one_of("open", "invite", "closed"), "Who may make an account", "open")
    signup_code: str = setting(text, "What a sign-up must name where SLUICE_SIGNUP=invite", "", secret=True)
    refresh_ttl: int = setting(integer(3600, 365 * 86400), "Seconds that a refresh token lives", str(lifetimes.REFRESH))
    dedup_scope: str = setting(one_of("global", "user"), "Whose content is stored once", "global")
    max_file_size: int = setting(integer(1, 2**63 - 1), "Bytes of one file, at most", str(5 * TIB))
    min_free: int = setting(integer(0, 2**63 - 1), "Bytes kept free on the storage's disk", str(512 * MIB))
    user_uploads: int = setting(integer(1, 10**6), "Unfinished uploads of one user, at most", "100")
    transfer_policies: tuple[Policy, ...] = setting(
        policies,
        "What is copied or moved by itself, as `replicate:main>archive after 0s; move:local>main after 1h keep "
        "7d`: [transfers](transfers.md)",
        "",
    )
    transfer_rate: int = setting(
        integer(0, 2**63 - 1),
        "Bytes per second that one worker copies and reads back, all its transfers together; 0: no limit",
        "0",
    )
    trash_days: int = setting(integer(1, 36500), "Days that a file lies in the trash before it is deleted", "30")

    scrub_rate: int = setting(
        integer(0, 2**63 - 1), "Bytes per second that one worker reads again and compares; 0: none", str(8 * MIB)
    )
    worker_heartbeat: Path | None = setting(
        folder, "The file that a worker touches when it has seen its rows, for a health check by its age", ""
    )
    target_ttl: int = setting(integer(1, 3600), "Seconds that the edge keeps where a blob lies", "60")
    revocation_lag: int = setting(integer(1, 60), "Seconds until a revoked token stops working", "2")
    link_grace: int = setting(integer(0, 3600), "Seconds that links outlast a lost API", "30")
    ready_networks: str = setting(networks, "Networks that may ask /readyz", "127.0.0.0/8 ::1/128")
    metrics_networks: str = setting(networks, "Networks that may ask /metrics", "127.0.0.0/8 ::1/128")
    trusted_proxies: str = setting(networks, "Proxies whose X-Forwarded-For is believed", "")
    allow_networks: str = setting(networks, "Networks that may ask at all; empty: every one", "")
    deny_networks: str = setting(networks, "Networks that may not, though they were allowed", "")
    admin_networks: str = setting(networks, "Networks where an admin's token is taken; empty: every one", "")
    content_host: str = setting(optional(host), "HOST or HOST:PORT that alone serves links' content", "")
    cache_storages: tuple[str, ...] = setting(names, "Storages whose content the edge keeps on its disk", "")
    cache_size: int = setting(integer(MIB, 2**50), "Bytes of the edge's disk for it", str(10 * 1024 * MIB))
    cache_path: str = setting(text, "Its folder; empty: beside nginx' other files", "")
    metrics_bind: str = setting(
        optional(bind), "Where a worker whose machine has no API gives its figures: HOST:PORT", ""
    )
    log_level: str = setting(one_of("debug", "info", "warning", "error"), "How much the logs say", "info")

    # -- constants, each with its reason; a test sets SLUICE_TEST_<NAME>

    # Four ranges, of a size that cannot be guessed. More ranges would cost reads, and prove no more.
    proof_ranges: int = constant(integer(1, 64), "Byte ranges that a challenge asks for", "4")
    # About half a second of reading and hashing, which a client's time limit allows.
    finalize_inline: int = constant(
        integer(0, 2**63 - 1),
        "Bytes up to which a complete that reads them is answered at once, not by polling",
        str(64 * MIB),
    )
    # A crash of an edge loses the counts of 5 s.
    usage_flush: int = constant(integer(1, 60), "Seconds between two reports of traffic by an edge", "5")
    # As long as an unfinished upload lives.
    upload_retention: int = constant(
        integer(3600, 10**8), "Seconds that an ended upload can be asked for", str(lifetimes.UPLOAD)
    )
    # The longest time in which a download is still begun by an old answer, with much to spare.
    transfer_drain: int = constant(
        integer(0, 604_800),
        "Seconds that a moved object is kept for downloads that are under way, after the edges stopped asking for it",
        "3600",
    )
    # A sweep that finds nothing costs a few statements.
    sweep_interval: int = constant(integer(1, 86400), "Seconds between two sweeps", "30")
    # A list of a storage costs it a request per 1,000 objects.
    sweep_list_interval: int = constant(
        integer(60, 604800), "Seconds between two lists of all that a storage holds, see [the sweep](sweep.md)", "21600"
    )
    # Four reads keep one disk or one connection busy.
    verify_parallel: int = constant(integer(1, 32), "Parts of one object that are read back at once", "4")
    # With the pauses between them, two days of failing.
    job_tries: int = constant(integer(1, 1000), "Failures in a row after which a job is given up", "50")
    # No upload's PUT can be under way for as long.
    orphan_age: int = constant(
        integer(86400, 10**8),
        "Seconds that an object stays that no row knows, at least; never less than a day",
        "86400",
    )
    # A month; SLUICE_SCRUB_RATE is what an operator limits.
    scrub_interval: int = constant(
        integer(3600, 10**9), "Seconds until a replica's bytes are compared again", "2592000"
    )
    # A person mistypes a password less often.
    signin_account_limit: int = constant(
        integer(1, 10**6), "Failed sign-ins to an account from one address in 5 minutes", "10"
    )
    # An office behind one address mistypes less often.
    signin_address_limit: int = constant(integer(1, 10**6), "Failed sign-ins from one address in 5 minutes", "100")
    # Above the threads of an API process and of a worker together.
    database_pool: int = constant(integer(1, 256), "Database connections of one process, at most", "16")
    # Four parts of 8 MiB hide a storage's answer times; more cost memory.
    transfer_parallel: int = constant(integer(1, 64), "Parts that one worker copies at once", "4")
    # 100 uploads of a thousand parts.
    user_parts: int = constant(integer(10_000, 10**7), "Parts of one user's unfinished uploads, at most", "100000")
    # A larger file would push too many others out.
    cache_max_file: int = constant(
        integer(0, 2**63 - 1), "Bytes of a file that is kept there, at most", str(1024 * MIB)
    )
    # As long as a slow client needs for one part.
    part_url_ttl: int = constant(integer(10, 3600), "Seconds that a part's URL lives", str(lifetimes.PART_URL))
    # The time for which an edge that lost the revocations may still accept tokens.
    access_ttl: int = constant(integer(60, 86400), "Seconds that an access token lives", str(lifetimes.ACCESS))
    # A caller that wants another life says `expires_in`.
    link_ttl: int = constant(
        integer(60, lifetimes.LINK_MOST), "Seconds that a link lives by default", str(lifetimes.LINK)
    )
    # As docs/api.md promises.
    upload_ttl: int = constant(
        integer(60, lifetimes.UPLOAD), "Seconds that an unfinished upload lives", str(lifetimes.UPLOAD)
    )
    # For more, run more workers.
    worker_threads: int = constant(integer(1, 64), "Jobs that one worker runs at once, besides finalizing", "4")

    # not a setting itself: where the keys were read, and are read again
    secret_keys_file: Path | None = dataclasses.field(default=None, compare=False)

    # not settings themselves: read for each storage that SLUICE_STORAGES names
    s3: Mapping[str, S3Config] = dataclasses.field(default_factory=dict)
    oss: Mapping[str, OSSConfig] = dataclasses.field(default_factory=dict)

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins of pages that send parts; at least one."""
        return self.web_origins or (origin(self.public_url),)

    @property
    def content_url(self) -> str:
        """Where links lead: the public URL, or the content's own host."""
        return f"{urlsplit(self.public_url).scheme}://{self.content_host}" if self.content_host else self.public_url

    def in_force(self) -> list[tuple[str, str]]:
        """Every setting's name and value; a secret's value is left out."""
        shown = _shown("SLUICE_", self)
        for kind, found in (("S3", self.s3), ("OSS", self.oss)):
            for name, config in found.items():
                shown += _shown(f"SLUICE_{kind}_{name.upper()}_", config)
        return shown


def _shown(prefix: str, config: Any) -> list[tuple[str, str]]:
    return [
        (
            f"{prefix}{field.name.upper()}",
            "(secret)" if field.metadata["secret"] else _as_text(getattr(config, field.name)),
        )
        for field in declared(type(config))
    ]


def _as_text(value: object) -> str:
    if isinstance(value, Mapping) and isinstance(value.get(DEFAULT), Tier):
        return show_tiers(value)
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{entry}" for key, entry in value.items())
    if isinstance(value, tuple):
        return ("; " if any(isinstance(entry, Policy) for entry in value) else ",").join(map(str, value))
    return "" if value is None else str(int(value) if isinstance(value, bool) else value)


def env_name(attribute: str) -> str:
    """The environment variable of a setting."""
    return f"SLUICE_{attribute.upper()}"


CLIENT = "SLUICE_CLIENT_"
"""Settings of the command `sluice`, which may stand in the same environment."""

GONE: Final = re.compile(
    r"SLUICE_(PROOF_RANGES|FINALIZE_INLINE|USAGE_FLUSH|UPLOAD_RETENTION|TRANSFER_DRAIN|SWEEP_INTERVAL"
    r"|SWEEP_LIST_INTERVAL|VERIFY_PARALLEL|JOB_TRIES|ORPHAN_AGE|SCRUB_INTERVAL|SIGNIN_ACCOUNT_LIMIT"
    r"|SIGNIN_ADDRESS_LIMIT|DATABASE_POOL|TRANSFER_PARALLEL|USER_PARTS|CACHE_MAX_FILE|PART_URL_TTL|ACCESS_TTL|LINK_TTL"
    r"|UPLOAD_TTL|WORKER_THREADS|S3_(\w+_)?SINGLE_PUT_MAX|OSS_(\w+_)?SIGNATURE)"
)
"""Settings of earlier versions that are constants now: they are passed over with a warning."""

# Settings of the same prefix that other parts read (the edge's template, gunicorn_conf, `core.metrics`, `scripts/run`):
# default and meaning.
ELSEWHERE: Final[Mapping[str, tuple[str, str]]] = {
    "SLUICE_EDGE_SOCKET": (
        "",
        "A unix socket by which the edge asks itself for paced downloads; empty: `edge.sock` in the folder that "
        "nginx' configuration is written to",
    ),
    "SLUICE_RESOLVER": (
        "",
        "DNS servers that the edge asks for storages' host names (after /etc/hosts), as `10.0.0.1 10.0.0.2:5353`;"
        " empty: those of /etc/resolv.conf. Names are asked as they are: no search domains",
    ),
    "SLUICE_CA_BUNDLE": (
        "",
        "The file of certificates that the edge believes storages' TLS endpoints by; empty: "
        "/etc/ssl/certs/ca-certificates.crt",
    ),
    "SLUICE_API_BIND": (
        "127.0.0.1:8000",
        "What gunicorn listens on, such as `unix:/path/api.sock`. Beside it, for the edge's own questions, which "
        "have two threads of their own in each process: the next port, or the socket's path with `.internal`",
    ),
    "SLUICE_API_DRAIN": (
        "0",
        "Seconds between SIGTERM and the API's orderly stop in which it serves on and `/healthz` says `stopping` "
        "(503): an edge that reaches it by TCP gives its requests to others meanwhile. 2 is enough",
    ),
    "SLUICE_API_WORKERS": (
        "2",
        "gunicorn's processes",
    ),
    "SLUICE_API_THREADS": (
        "8",
        "Threads of each process for clients' calls",
    ),
    "SLUICE_METRICS_FOLDER": (
        "",
        "Where the API's processes and workers of one machine keep what they count, to be asked as one; empty: "
        "each answers for itself alone",
    ),
    "SLUICE_TLS_CERT": (
        "",
        "The edge's certificate with its chain, a PEM file; with it the edge speaks TLS and HTTP/2",
    ),
    "SLUICE_TLS_KEY": (
        "",
        "The certificate's key, a PEM file",
    ),
    "SLUICE_REDIRECT_LISTEN": (
        "",
        "PORT or ADDRESS:PORT where plain HTTP is sent on to SLUICE_PUBLIC_URL",
    ),
}


def load(environ: Mapping[str, str] = os.environ) -> Config:
    """Reads the settings.

    Raises:
        ConfigError: with every missing, malformed and unknown setting.
    """
    reader = Reader(environ)
    values = reader.read(Config, ["SLUICE_"])
    problems = reader.problems
    s3: dict[str, S3Config] = {}
    oss: dict[str, OSSConfig] = {}
    for name, kind in values.get("storages", {}).items():
        if kind != "local":
            before, prefixes = len(problems), [f"SLUICE_{kind.upper()}_{name.upper()}_", f"SLUICE_{kind.upper()}_"]
            read = reader.read(S3Config if kind == "s3" else OSSConfig, prefixes)
            if len(problems) > before:
                continue
            if kind == "s3":
                s3[name] = S3Config(**read)
            else:
                oss[name] = OSSConfig(**read)
    if "local" in values.get("storages", {}).values() and values.get("storage_root", "") is None:
        problems.append("SLUICE_STORAGE_ROOT is missing: a storage of kind local needs it")
    for tier, name in values.get("tier_storages", {}).items():
        if name not in values.get("storages", {}):
            problems.append(f"SLUICE_TIER_STORAGES names {name} for {tier}, which SLUICE_STORAGES does not")
    problems += unknown(values.get("transfer_policies", ()), values.get("storages", {}))
    for name in values.get("cache_storages", ()):
        if values.get("storages", {}).get(name, "local") == "local":
            problems.append(f"SLUICE_CACHE_STORAGES names {name}, which is no storage that nginx proxies")
    if values.get("signup") == "invite" and not values.get("signup_code"):
        problems.append("SLUICE_SIGNUP_CODE is missing: SLUICE_SIGNUP=invite needs it")
    known = reader.known | ELSEWHERE.keys()
    for name in sorted(environ):
        if GONE.fullmatch(name):
            _log.warning("%s is no setting any more: what it set is a constant now", name)
        elif name.startswith("SLUICE_") and not name.startswith(CLIENT) and name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            problems.append(f"{name} is not a setting" + (f"; {near[0]} is" if near else ""))
    if problems:
        raise ConfigError(problems)
    keys_file = None if "SLUICE_SECRET_KEYS" in environ else Path(environ["SLUICE_SECRET_KEYS_FILE"])
    return Config(**values, secret_keys_file=keys_file, s3=s3, oss=oss)
