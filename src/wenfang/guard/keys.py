"""Keys: API keys and their digests, the Ed25519 key pair of this installation, and the public keys it trusts.

An API key is 256 random bits, so a fast hash is the right digest: nobody can try them all. Knows nothing of records or stores.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key, load_pem_public_key

from wenfang.core.durable import disk_error, fsync_folder, write_file
from wenfang.core.errors import Broken

__all__ = ["KEY_PREFIX", "PRIVATE_KEY_FILE", "Ed25519Signer", "TrustedKeys", "digest", "key_id_of", "new_key"]

KEY_PREFIX = "wf_"
PRIVATE_KEY_FILE = "installation.key"


def new_key() -> str:
    """A new API key: ``wf_`` and 52 characters of base 32 that hold 256 random bits.

    >>> len(new_key()), new_key() == new_key()
    (55, False)
    """
    return KEY_PREFIX + base64.b32encode(secrets.token_bytes(32)).decode().rstrip("=").lower()


def digest(key: str) -> str:
    """What is kept of an API key: its SHA-256, 64 hexadecimal digits. Any string has one.

    Cost: about 1 µs.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def key_id_of(public: Ed25519PublicKey) -> str:
    """SHA-256 of the raw public key, first 16 digits."""
    return hashlib.sha256(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


class Ed25519Signer:
    """Signs as this installation; its key pair is made at first use and stays in ``folder``.

    Args:
        folder: ``keys/`` of the home. ``installation.key`` is the private half (0600), ``<key id>.pub`` the public one.

    Raises:
        Broken: `key.damaged`, `key.too-open`, `home.write-failed`.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / PRIVATE_KEY_FILE
        try:
            if not path.exists():
                _create(folder, path)
            if (mode := path.stat().st_mode & 0o777) & 0o077:
                raise Broken("key.too-open", path=str(path), mode=f"{mode:o}")
            pem = path.read_bytes()
        except OSError as e:
            raise disk_error(e, path) from e
        try:
            private = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as e:
            raise Broken("key.damaged", path=str(path)) from e
        if not isinstance(private, Ed25519PrivateKey):
            raise Broken("key.damaged", path=str(path))
        self._private = private
        self._id = key_id_of(private.public_key())
        public_pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        public_path = folder / f"{self._id}.pub"
        if not public_path.exists() or public_path.read_bytes() != public_pem:
            write_file(public_path, public_pem)

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature, 64 bytes."""
        return self._private.sign(data)

    def key_id(self) -> str:
        """SHA-256 of the public key, first 16 digits."""
        return self._id


def _create(folder: Path, path: Path) -> None:
    """Make the private key; of two processes that try at once, the first one's key stays."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = folder / f".tmp-{secrets.token_hex(8)}"
    write_file(draft, pem, mode=0o600)
    try:
        os.link(draft, path)  # unlike a rename, a link never replaces what is there
    except FileExistsError:
        return
    finally:
        draft.unlink(missing_ok=True)
    fsync_folder(folder)


class TrustedKeys:
    """Checks signatures against the public keys ``folder/*.pub``; a key added later is found when first asked for.

    Args:
        folder: ``keys/`` of the home, or any folder of PEM public keys.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known = _public_keys(folder)

    def key_ids(self) -> list[str]:
        """Who is trusted, sorted."""
        return sorted(self._known)

    def verify(self, data: bytes, signature: bytes, key_id: str) -> None:
        """Return if ``signature`` over ``data`` was made by the trusted key ``key_id``.

        Raises:
            Broken: `signature.unknown-signer`, `signature.bad`, `key.damaged`.
        """
        if key_id not in self._known:
            self._known = _public_keys(self.folder)
        public = self._known.get(key_id)
        if public is None:
            raise Broken("signature.unknown-signer", key_id=key_id[:64])
        try:
            public.verify(signature, data)
        except InvalidSignature as e:
            raise Broken("signature.bad", key_id=key_id) from e


def _public_keys(folder: Path) -> dict[str, Ed25519PublicKey]:
    found: dict[str, Ed25519PublicKey] = {}
    for path in sorted(folder.glob("*.pub")):
        try:
            key = load_pem_public_key(path.read_bytes())
        except OSError as e:
            raise disk_error(e, path) from e
        except (ValueError, TypeError, UnsupportedAlgorithm) as e:
            raise Broken("key.damaged", path=str(path)) from e
        if not isinstance(key, Ed25519PublicKey):
            raise Broken("key.damaged", path=str(path))
        found[key_id_of(key)] = key
    return found
