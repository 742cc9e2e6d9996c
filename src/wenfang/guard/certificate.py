"""The certificate by which processes of one installation know each other across machines: made at first use, held by both sides, signed by nobody else."""

from __future__ import annotations

import datetime as dt
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from wenfang.core.durable import disk_error, write_file
from wenfang.core.errors import Broken

__all__ = ["CERTIFICATE_FILE", "own_certificate"]

CERTIFICATE_FILE = "replicas.pem"
VALID_DAYS = 3650
"""Nobody else relies on it: to change it, remove the file and start the studio again."""


def own_certificate(folder: Path) -> Path:
    """The PEM file with certificate and key in ``keys/``, readable by the owner only; made when it is not there.

    Raises:
        Broken: `key.too-open`, `home.write-failed`.
    """
    path = folder / CERTIFICATE_FILE
    try:
        if not path.exists():
            write_file(path, _made(), mode=0o600)
        if (mode := path.stat().st_mode & 0o777) & 0o077:
            raise Broken("key.too-open", path=str(path), mode=f"{mode:o}")
    except OSError as e:
        raise disk_error(e, path) from e
    return path


def _made() -> bytes:
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"wenfang-{secrets.token_hex(8)}")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))  # the clocks of two machines differ
        .not_valid_after(now + dt.timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, None)
    )
    return certificate.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
