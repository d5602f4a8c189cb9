"""A throw-away certificate authority, and what it signs, made by the openssl command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_EXTENSIONS = """\
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
subjectAltName = IP:127.0.0.1
authorityKeyIdentifier = keyid
extendedKeyUsage = serverAuth
[client]
authorityKeyIdentifier = keyid
extendedKeyUsage = clientAuth
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates that are good for two days; a server's is for 127.0.0.1 and no name."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "extensions.cnf").write_text(_EXTENSIONS)
        self._own = self._make(name, "authority")
        self.certificate = self._own.certificate

    def server(self) -> Pair:
        """For a broker on 127.0.0.1."""
        return self._make("server", "server")

    def client(self, name: str) -> Pair:
        """For a client that shows who it is."""
        return self._make(name, "client")

    def _make(self, name: str, kind: str) -> Pair:
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request = self._folder / f"{name}.csr"
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha256"),
            *("-subj", f"/CN=Tidegate test {name}", "-keyout", str(pair.key), "-out", str(request)),
        )
        signer = ["-signkey", str(pair.key)]
        if kind != "authority":
            signer = ["-CA", str(self._own.certificate), "-CAkey", str(self._own.key), "-CAcreateserial"]
        self._openssl(
            *("x509", "-req", "-sha256", "-days", "2", "-in", str(request), *signer),
            *("-extfile", str(self._folder / "extensions.cnf"), "-extensions", kind),
            *("-out", str(pair.certificate)),
        )
        return pair

    @staticmethod
    def _openssl(*arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
