"""TLS on loopback: azure-core sends bearer tokens over nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import certifi
import trustme


@dataclass(frozen=True)
class Certificates:
    """Where the files are.

    Args:
        chain: The server's certificate.
        key: The server's private key, mode 0600.
        bundle: What a client trusts: our authority and certifi's, since ``REQUESTS_CA_BUNDLE``
            replaces trust for the whole process.
    """

    chain: Path
    key: Path
    bundle: Path


def certificates(folder: Path) -> Certificates:
    """Return the certificates in *folder*, made once for each state folder."""
    found = Certificates(folder / "server.pem", folder / "server.key", folder / "ca-bundle.pem")
    if found.bundle.exists():
        return found
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA(organization_name="Azure ML emulator")
    server = authority.issue_cert("localhost", "127.0.0.1", "::1")
    found.chain.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    found.key.touch(mode=0o600)
    found.key.write_bytes(server.private_key_pem.bytes())
    public = Path(certifi.where()).read_bytes()
    # The last of the three, and whole or not at all: it says that the others are there.
    part = found.bundle.with_suffix(".part")
    part.write_bytes(authority.cert_pem.bytes() + b"\n" + public)
    part.replace(found.bundle)
    return found
