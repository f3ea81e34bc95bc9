"""A stack started by `scripts/run`, as a user does: real servers, a free port, a temporary folder."""

import contextlib
import http.client
import json
import os
import pwd
import re
import select
import signal
import subprocess
import time
from pathlib import Path

from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60


class RunningStack:
    """One `scripts/run` and its output.

    Args:
        data: the data folder.
        port: where nginx listens; a free one by default.
        root: the checkout.
        prefix: a command that runs it, for example setpriv.
        environment: additional variables.
        arguments: further options of scripts/run.
    """

    def __init__(
        self,
        data: Path | None,
        port: int = 0,
        root: Path = ROOT,
        prefix: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.data = data
        self.port = port or free_port()
        self.output = ""
        command = [*prefix, str(root / "scripts" / "run"), "--host", "127.0.0.1", "--port", str(self.port)]
        if data is not None:
            command += ["--data", str(data)]
        command += arguments
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )

    def read_until(self, pattern: str, seconds: float = START_SECONDS) -> re.Match[str]:
        """Waits until the output after the last match matches; fails if it does not."""
        deadline = time.monotonic() + seconds
        begin = len(self.output)
        while not (match := re.search(pattern, self.output[self._seen :])):
            assert time.monotonic() < deadline, f"no {pattern!r} in {seconds} s:\n{self.output[begin:]}"
            assert self._read(deadline - time.monotonic()), f"ended before {pattern!r}:\n{self.output}"
        self._seen += match.end()
        return match

    _seen = 0

    def _read(self, seconds: float) -> bool:
        assert self.process.stdout
        if select.select([self.process.stdout], [], [], max(0.0, seconds))[0]:
            chunk = os.read(self.process.stdout.fileno(), 65536)
            self.output += chunk.decode(errors="replace")  # a chunk may end within a character
            return bool(chunk)
        return True

    def ready(self, seconds: float = START_SECONDS) -> "RunningStack":
        """Waits for the lines that show the settings in force."""
        self.read_until(r"Sluice answers at http://127\.0\.0\.1:\d+(?s:.*)\n  settings .*\n", seconds)
        return self

    def end(self, seconds: float = 60) -> int:
        """Reads to the end of the output. Returns the exit code."""
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()):
            assert time.monotonic() < deadline, f"still running after {seconds} s:\n{self.output}"
        return self.process.wait(5)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and waits for the end. Returns the exit code."""
        self.process.send_signal(number)
        return self.end()

    def close(self) -> None:
        """Ends everything, even if the test failed."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        if self.data is not None and self.process.returncode < 0:
            await_no_process(self.data, kill=True)

    def pid(self, service: str) -> int:
        """The process id of a server's first process."""
        assert self.data
        return int((self.data / "run" / "pids" / service).read_text().split()[0])

    def get(self, path: str) -> int:
        """The status of a GET; 0 if there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()


def sign_in(port: int, password: str) -> str:
    """Signs in as admin. Returns the type of the token."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    body = json.dumps({"username": "admin", "password": password})
    connection.request("POST", "/api/v1/sessions", body, {"Content-Type": "application/json"})
    answer = json.load(connection.getresponse())
    connection.close()
    return str(answer.get("token_type", answer))


def processes_of(data: Path) -> dict[int, str]:
    """Processes whose working folder is in the data folder, or whose command line names it."""
    working = _processes_working_in(data)
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if command and (str(data) in command or int(entry.name) in working):
                found[int(entry.name)] = command
    return found


def _processes_working_in(data: Path) -> set[int]:
    """Runs as the servers' user: root in a container may not see other processes' working folders."""
    owner, group = data.stat().st_uid, data.stat().st_gid  # the kernel compares both
    if owner == 0:
        owner, group = pwd.getpwnam("sluice")[2:4]
    drop = ["setpriv", f"--reuid={owner}", f"--regid={group}", "--clear-groups", "--"]
    find = ["bash", "-c", 'find /proc/[0-9]*/cwd -maxdepth 0 \\( -lname "$DATA" -o -lname "$DATA/*" \\)']
    result = subprocess.run(
        [*(drop if os.geteuid() == 0 else []), *find],
        env={**os.environ, "DATA": str(data)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    return {int(line.split("/")[2]) for line in result.stdout.split()}


def await_no_process(data: Path, seconds: float = 15, kill: bool = False) -> None:
    """Waits until no process of a data folder is left; with `kill`, kills them."""
    deadline = time.monotonic() + seconds
    while left := processes_of(data):
        assert time.monotonic() < deadline, f"still there: {left}"
        for pid in left if kill else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)  # a poll: other processes send no event
