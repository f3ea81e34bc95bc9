"""A self-signed certificate for trials: `scripts/run --tls`."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

_DAYS = 365
_SECONDS_LEFT = 86_400


class Certificate:
    """A certificate and its key.

    Attributes:
        file: the certificate, in PEM.
        key: its key, readable by its owner only.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "tls.crt"
        self.key = folder / "tls.key"

    def make(self, host: str) -> None:
        """Make the certificate if it is missing or expires within a day. It names this host and localhost."""
        if self.file.exists() and self._openssl(["x509", "-noout", "-checkend", str(_SECONDS_LEFT), "-in"]):
            return
        names = ["DNS:localhost", "IP:127.0.0.1", "IP:::1"]
        plain = host.replace(".", "").replace(":", "")
        own = f"IP:{host}" if plain.isdigit() or ":" in host else f"DNS:{host}"
        self.file.unlink(missing_ok=True)
        how = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", str(_DAYS)]
        what = ["-subj", "/CN=Sluice on trial", "-addext", "subjectAltName=" + ",".join(dict.fromkeys([*names, own]))]
        where = ["-keyout", str(self.key), "-out", str(self.file)]
        subprocess.run(["openssl", "req", *how, *what, *where], check=True, capture_output=True)
        self.key.chmod(0o600)

    def settings(self) -> dict[str, str]:
        """The settings that name it to the edge."""
        return {"SLUICE_TLS_CERT": str(self.file), "SLUICE_TLS_KEY": str(self.key)}

    def _openssl(self, arguments: Sequence[str]) -> bool:
        return not subprocess.run(["openssl", *arguments, str(self.file)], check=False, capture_output=True).returncode
