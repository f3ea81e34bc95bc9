"""The peer: a separate nginx without Lua, which does the same work with nginx's modules.

It has the edge's number of workers, log format, buffers and limits, taken from the same files. It runs as the
stack's user on the same file system, and serves the stack's objects.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

from loadtest.benchmarks.measure import family
from loadtest.benchmarks.stack import ROOT, Stack, end, free_port

_SECRET = "bench"
_EXPIRES = 4102444800  # 2100-01-01: expiry is not measured
_CONFIG = """
worker_processes auto;
worker_rlimit_nofile 16384;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 8192; }}
http {{
    {log}
    {limits}
    proxy_temp_path {folder}/temp; client_body_temp_path {folder}/incoming; fastcgi_temp_path {folder}/temp;
    uwsgi_temp_path {folder}/temp; scgi_temp_path {folder}/temp;
    types {{ }}
    default_type application/octet-stream;
    {common}
    server {{
        listen 127.0.0.1:{port};
        # a log line as long as the edge's
        {variables}
        set $route static; set $log_path ""; set $user 0123456789abcdef0123456789abcdef;
        location /static/ {{ alias {objects}/; }}
        location /secure/ {{
            secure_link $arg_md5,$arg_expires;
            secure_link_md5 "$secure_link_expires$uri {secret}";
            if ($secure_link = "") {{ return 403; }}
            if ($secure_link = "0") {{ return 410; }}
            alias {objects}/;
        }}
        location /secure-cached/ {{
            secure_link $arg_md5,$arg_expires;
            secure_link_md5 "$secure_link_expires$uri {secret}";
            if ($secure_link = "") {{ return 403; }}
            if ($secure_link = "0") {{ return 410; }}
            alias {objects}/;
            {cache}
        }}
        {proxy}
        location /accel/ {{ proxy_pass http://unix:{folder}/accel.sock:; }}
        location /accel-objects/ {{ internal; alias {objects}/; }}
        location /put/ {{
            root {folder};
            client_body_buffer_size 256k;
            client_max_body_size 0;
            dav_methods PUT;
            create_full_put_path off;
        }}
    }}
}}
"""
# Directives that the edge's nginx.conf sets for every request, and that a plain nginx has too.
_COMMON = ("server_tokens", "sendfile", "tcp_nopush", "keepalive_timeout", "keepalive_requests",
           "reset_timedout_connection", "absolute_redirect")  # fmt: skip


class Peer:
    """The peer nginx. Use it as a context manager.

    Args:
        stack: a running stack.
        folder: for its files.
    """

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.port = free_port()
        self._stack = stack
        self._folder = folder / "peer"

    def __enter__(self) -> Peer:
        owner = self._stack.data.stat()
        for name in ("", "temp", "incoming", "put"):
            (self._folder / name).mkdir(mode=0o755)
            os.chown(self._folder / name, owner.st_uid, owner.st_gid)
        config = self._folder / "nginx.conf"
        config.write_text(self._config())
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        command = [nginx, "-e", f"{self._folder}/error.log", "-c", str(config), "-g", "daemon off;"]
        if os.geteuid() == 0:
            user = [f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups"]
            command = ["setpriv", *user, "--", *command]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._await_start()
        return self

    def _config(self) -> str:
        edge = (ROOT / "nginx" / "nginx.conf.template").read_text()
        download = (ROOT / "nginx" / "snippets" / "download.conf").read_text()
        log = (ROOT / "nginx" / "snippets" / "log.conf").read_text()
        declared = re.findall(r"^set \$(\w+)", (ROOT / "nginx/snippets/variables.conf").read_text(), re.M)
        limits = (ROOT / "nginx" / "snippets" / "limits.conf").read_text()
        return _CONFIG.format(
            folder=self._folder,
            log=log.replace("${SLUICE_LOG_DIR}", str(self._folder)),
            # limits are part of the measurement; the peer has none
            limits="".join(line for line in limits.splitlines(True) if not line.startswith("limit_")),
            cache="\n            ".join(re.findall(r"^open_file_cache.*;$", download, re.M)),
            common="\n    ".join(re.findall(rf"^ {{4}}((?:{'|'.join(_COMMON)}) .*;)$", edge, re.M)),
            objects=self._stack.objects,
            port=self.port,
            proxy=self._proxy(),
            variables=" ".join(f'set ${name} "";' for name in declared if f"${name}" in log),
            secret=_SECRET,
        )

    def _proxy(self) -> str:
        """A location for the stack's Ceph, if it has one: passes requests on to its buckets, without copies on disk."""
        settings = self._stack.data / "ceph" / "settings"
        if not settings.exists():
            return ""
        address = "127.0.0.1:" + dict(line.split("=", 1) for line in settings.read_text().split())["RGW_PORT"]
        return (
            f"location /bench/ {{ proxy_pass http://{address}; proxy_set_header Host {address}; "
            'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_max_temp_file_size 0; }'
        )

    def _await_start(self) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as connection:
                if connection.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)  # a poll: nginx sends no event
        self.__exit__()
        raise SystemExit("the peer nginx did not start")

    def __exit__(self, *_: object) -> None:
        end(self._process, 20)

    @property
    def workers(self) -> list[int]:
        return family(self._process.pid)[1:]

    @property
    def folder(self) -> Path:
        return self._folder

    @staticmethod
    def static_path(key: str) -> str:
        """The path of an object."""
        return f"/static/{key}"

    @staticmethod
    def secure_path(key: str, cached: bool = False) -> str:
        """The path of an object, signed for ngx_http_secure_link_module.

        If `cached`, in the location with the edge's open_file_cache, which is off by default in nginx.
        """
        path = f"/secure-cached/{key}" if cached else f"/secure/{key}"
        digest = hashlib.md5(f"{_EXPIRES}{path} {_SECRET}".encode(), usedforsecurity=False).digest()
        signature = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return f"{path}?md5={signature}&expires={_EXPIRES}"
