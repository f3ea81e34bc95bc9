"""`scripts/run --tls`: HTTPS with one option."""

import ssl
from pathlib import Path
from urllib.request import urlopen

from tests.run.conftest import Start


def test_one_word_gives_https(start: Start, data: Path) -> None:
    stack = start(arguments=("--tls",))
    stack.read_until(rf"Sluice answers at https://127\.0\.0\.1:{stack.port}(?s:.*)\n  settings .*\n")
    context = ssl.create_default_context(cafile=str(data / "secrets" / "tls.crt"))
    with urlopen(f"https://127.0.0.1:{stack.port}/readyz", context=context, timeout=10) as answer:
        assert answer.status == 200
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert (data / "secrets" / "tls.key").stat().st_mode & 0o777 == 0o600
    assert stack.stop() == 0
