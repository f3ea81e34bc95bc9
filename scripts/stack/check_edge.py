"""Runs `nginx -t` on every variant of the configuration that can be rendered. `scripts/check` runs this."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.stack.gateway import RENDER, Address, Nginx, settings_in_force, stack_settings
from scripts.stack.paths import Paths
from scripts.stack.secrets import Secrets
from scripts.stack.services import MariaDB, Redis
from scripts.stack.tls import Certificate

TLS = {"SLUICE_PUBLIC_URL": "https://files.example", "SLUICE_REDIRECT_LISTEN": "127.0.0.1:8081"}
ADDRESSES = {
    "SLUICE_TRUSTED_PROXIES": "10.0.0.0/8 fd00::/8",
    "SLUICE_ALLOW_NETWORKS": "10.0.0.0/8 127.0.0.1 ::1",
    "SLUICE_DENY_NETWORKS": "10.1.0.0/16 2001:db8::/32",
    "SLUICE_ADMIN_NETWORKS": "10.2.0.0/16",
    "SLUICE_READY_NETWORKS": "10.0.0.0/8",
    "SLUICE_METRICS_NETWORKS": "10.3.0.0/16 ::1/128",
}
CONTENT = {"SLUICE_CONTENT_HOST": "content.example:8443"}
CACHE = {"SLUICE_CACHE_STORAGES": "main", "SLUICE_CACHE_SIZE": "1048576"}
TCP = {"SLUICE_API_SOCKET": "", "SLUICE_API_ADDRESS": "api.example:8000"}
# (name, whether with TLS, settings added to the stack's)
VARIANTS: tuple[tuple[str, bool, dict[str, str]], ...] = (
    ("plain", False, {}),
    ("TLS", True, TLS),
    ("TLS without a redirect", True, {**TLS, "SLUICE_REDIRECT_LISTEN": ""}),
    ("address rules", False, ADDRESSES),
    ("content host", False, CONTENT),
    ("a cache", False, CACHE),
    ("API by TCP", False, TCP),
    ("all at once", True, {**TLS, **ADDRESSES, **CONTENT, **CACHE, **TCP}),
)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="sluice-check-") as folder:
        paths, address = Paths.of(Path(folder)), Address("127.0.0.1", 8080)
        paths.make()
        Secrets(paths.secrets).make()
        certificate = Certificate(paths.secrets)
        certificate.make("files.example")
        settings = stack_settings(paths, address, MariaDB(paths), Redis(paths))
        in_force = {**settings_in_force(settings), **settings}
        failed = 0
        for name, with_tls, more in VARIANTS:
            given = {
                **Nginx(paths, {**in_force, **(certificate.settings() if with_tls else {})}, address).environment()
            }
            if not _passes(paths, {**given, **more}):
                print(f"the variant that failed: {name}")
                failed += 1
        paths.free_memory()
    return failed


def _passes(paths: Paths, given: dict[str, str]) -> bool:
    subprocess.run([RENDER, str(paths.nginx)], env={**os.environ, **given}, check=True)
    program, *_ = Nginx(paths, {}, Address("127.0.0.1", 8080)).command()
    command = [program, "-t", "-e", "stderr", "-c", str(paths.nginx / "nginx.conf")]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    print(result.stderr, end="")
    return result.returncode == 0 and "[warn]" not in result.stderr


if __name__ == "__main__":
    sys.exit(main())
