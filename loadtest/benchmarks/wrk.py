"""wrk: many requests on kept connections, from one thread (https://github.com/wg/wrk, version 4.1)."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtest.benchmarks.bench import cpu_used
from loadtest.benchmarks.measure import Sample

# Requests are formatted once; wrk then sends them in turn.
_SCRIPT = """
local paths, requests, at = {{ {paths} }}, {{}}, 0
init = function()
    for i, path in ipairs(paths) do requests[i] = wrk.format({method}, path, {{ {headers} }}, {body}) end
end
request = function()
    at = at % #requests + 1
    return requests[at]
end
"""
_FAILURES = re.compile(r"Non-2xx or 3xx responses: .*|Socket errors: .*")

_SECONDS = {"ms": 0.001, "s": 1, "m": 60}
_SOCKETS = re.compile(r"Socket errors: .*")


@dataclass(frozen=True)
class Load:
    """Requests, and the number of connections.

    Attributes:
        refused: every request is expected to fail.
    """

    port: int
    paths: Sequence[str]
    connections: int = 16
    method: str = "GET"
    headers: Mapping[str, str] | None = None
    body: str | None = None
    refused: bool = False

    def _script(self) -> str:
        # a JSON string is a valid Lua string if it has only ASCII and no control characters
        headers = ",".join(f"[{json.dumps(name)}]={json.dumps(value)}" for name, value in (self.headers or {}).items())
        return _SCRIPT.format(
            paths=",".join(map(json.dumps, self.paths)),
            method=json.dumps(self.method),
            headers=headers,
            body=json.dumps(self.body) if self.body else "nil",
        )

    def put(self, seconds: int, servers: Sequence[int]) -> Sample:
        """Requests per second, and CPU seconds of `servers` per request.

        Raises:
            SystemExit: a request failed, so the figures are invalid.
        """
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(self._script())
            script.flush()
            options = ["-t1", f"-c{self.connections}", f"-d{seconds}s", "--timeout", "10s"]
            with cpu_used(servers) as used:
                output = subprocess.run(
                    ["wrk", *options, "-s", script.name, f"http://127.0.0.1:{self.port}"],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
        if failures := (_SOCKETS if self.refused else _FAILURES).findall(output):
            raise SystemExit(f"{self.method} {self.paths[0][:20]}…: {'; '.join(failures)}")
        found = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m),", output)
        assert found, output
        count, duration = int(found[1]), float(found[2]) * _SECONDS[found[3]]
        return Sample(count / duration, used.seconds / count)
