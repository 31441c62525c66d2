"""Keyed pseudonyms: patients become short codes, identifiers in uris become reversible tokens.

The key is a file of its own, outside the lake. Whoever has the lake but not the key can tell that
two images show the same patient, and nothing more; whoever has both can find the source file.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from schemas.errors import KeyFileError

KEY_BYTES = 32
KEY_FILE_VARIABLE = "RAYWARD_KEY_FILE"

MARK = "~id-"
"""How a token begins."""
TOKEN = f"{MARK}[A-Za-z0-9_-]{{22,}}~"
"""A token as a regular expression: AES-SIV of the text in base64url.

The tag alone takes 22 characters, so no ordinary file name looks like one, and all characters
stand in uris unescaped."""

_TOKEN = re.compile(TOKEN)
_SHORT = 4
"""Identifiers below this length are replaced only where they stand alone."""


def key_file() -> Path:
    """Where the key lies: ``$RAYWARD_KEY_FILE``, else in the user's configuration folder."""
    named = os.environ.get(KEY_FILE_VARIABLE)
    if named:
        return Path(named).expanduser()
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(config).expanduser() / "rayward" / "pseudonym.key"


def is_masked(uri: str) -> bool:
    """Whether a uri holds a token, so that the key is needed to find its file."""
    return MARK in uri


class Pseudonymizer:
    """Makes pseudonyms and tokens with one key, and reads tokens back."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise KeyFileError(
                "The pseudonym key has a wrong length", got=f"{len(key)} bytes, not {KEY_BYTES}"
            )
        self._patient_key = _derive(key, b"patient", 32)
        self._cipher = AESSIV(_derive(key, b"token", 64))
        self.check = _derive(key, b"check", 6).hex()
        """Twelve hex digits that tell keys apart and give nothing away."""
        # One patient stands in many rows of a shard.
        self._patient = lru_cache(maxsize=2**12)(self._compute_patient)

    @staticmethod
    def from_key_file(*, create: bool = False) -> "Pseudonymizer":
        """Read the key; with ``create`` make one where there is none, readable by its owner only.

        Raises:
            KeyFileError: if the file is missing, damaged, or open to others.
        """
        path = key_file()
        if create and not path.exists():
            _create_key(path)
        return Pseudonymizer(_read_key(path))

    @staticmethod
    def ephemeral() -> "Pseudonymizer":
        """A pseudonymizer whose key is forgotten: for dry runs, whose output nobody keeps."""
        return Pseudonymizer(secrets.token_bytes(KEY_BYTES))

    def patient(self, identifier: str, numbering: str | None = None) -> str:
        """The pseudonym of a patient: ``p`` and 20 base32 characters (100 bits of HMAC-SHA256).

        Equal identifiers of different ``numbering`` are different patients.
        """
        number = identifier.strip()
        # No numbering holds a NUL, so no identifier of one looks like one of another.
        return self._patient(number if numbering is None else f"{numbering}\0{number}")

    def seal(self, text: str) -> str:
        """``text`` as one token."""
        sealed = self._cipher.encrypt(text.encode("utf-8", "surrogateescape"), None)
        return f"{MARK}{base64.urlsafe_b64encode(sealed).decode().rstrip('=')}~"

    def mask(self, uri: str, identifiers: Iterable[str]) -> str:
        """Replace every occurrence of the identifiers in ``uri`` by its token.

        Case does not matter when looking, and the token keeps the case that was found. Where
        identifiers overlap the longest wins. A number is found with leading zeros too, but never
        within a longer number (``person1`` is not a part of ``person12``); an identifier shorter
        than four characters only where no letter continues it.
        """
        if not _is_text(uri):
            # A file name that is no UTF-8 can't stand in a table as it is.
            return self.seal(uri)
        pattern = _pattern_of(tuple(sorted({one.strip() for one in identifiers} - {""})))
        if pattern is None and MARK not in uri:
            return uri
        # Whatever already looks like a token is sealed too, so that `reveal` gives it back.
        parts, at = [], 0
        for found in (pattern or _TOKEN).finditer(uri):
            parts += [uri[at : found.start()], self.seal(found[0])]
            at = found.end()
        return "".join([*parts, uri[at:]])

    def reveal(self, uri: str) -> str:
        """The original of a masked or sealed uri; any other uri comes back as it is.

        Raises:
            KeyFileError: if a token was made with another key.
        """
        if MARK not in uri:
            return uri
        return _TOKEN.sub(lambda found: self.open(found[0]), uri)

    def open(self, token: str) -> str:
        """What one whole token stands for.

        Raises:
            KeyFileError: if it was made with another key.
        """
        try:
            # A night opens hundreds of thousands, and `base64` takes as long around this call.
            text = token[len(MARK) : -1].replace("-", "+").replace("_", "/")
            sealed = binascii.a2b_base64(f"{text}==")
            return self._cipher.decrypt(sealed, None).decode("utf-8", "surrogateescape")
        except (InvalidTag, ValueError):
            raise KeyFileError(
                "An identifier was replaced with another key than this one",
                where=str(key_file()),
                remedy=f"put the key this lake was made with there, or point {KEY_FILE_VARIABLE} "
                "at it",
            ) from None

    def identifiers_in(self, uri: str) -> list[str]:
        """What the tokens of a masked uri stand for.

        Raises:
            KeyFileError: if a token was made with another key.
        """
        return [self.open(found[0]) for found in _TOKEN.finditer(uri)]

    def __repr__(self) -> str:
        return f"Pseudonymizer(check={self.check!r})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a pseudonymizer holds the key and is not to be pickled")

    def _compute_patient(self, identifier: str) -> str:
        digest = hmac.digest(self._patient_key, identifier.encode(), "sha256")
        return "p" + base64.b32encode(digest).decode()[:20].lower()


def _is_text(uri: str) -> bool:
    return uri.isascii() or not any("\ud800" <= one <= "\udfff" for one in uri)


def _derive(key: bytes, purpose: bytes, size: int) -> bytes:
    """An independent key for a purpose (BLAKE2b, keyed and personalised)."""
    return hashlib.blake2b(key=key, person=purpose, digest_size=size).digest()


@lru_cache(maxsize=4096)
def _pattern_of(identifiers: tuple[str, ...]) -> re.Pattern[str] | None:
    """One pattern for all identifiers, the longest first, and for tokens."""
    if not identifiers:
        return None
    ordered = sorted(identifiers, key=len, reverse=True)
    return re.compile("|".join([_TOKEN.pattern, *map(_expression, ordered)]), re.IGNORECASE)


def _expression(identifier: str) -> str:
    core = re.escape(identifier)
    if identifier.isdecimal():
        core = "0*" + re.escape(identifier.lstrip("0") or "0")
    letter = r"[^\W\d_]"
    before = after = ""
    if identifier[0].isdecimal():
        before = r"(?<!\d)"
    elif identifier[0].isalpha() and len(identifier) < _SHORT:
        before = f"(?<!{letter})"
    if identifier[-1].isdecimal():
        after = r"(?!\d)"
    elif identifier[-1].isalpha() and len(identifier) < _SHORT:
        after = f"(?!{letter})"
    return before + core + after


def _create_key(path: Path) -> None:
    """Make a key file that appears whole or not at all; a racing process's file stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        staged = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(KEY_BYTES) + "\n")
                file.flush()
                os.fsync(file.fileno())
            # Unlike a rename, a link fails where the name is taken.
            os.link(staged, path)
        except FileExistsError:
            return
        finally:
            staged.unlink()
    except OSError as error:
        raise KeyFileError(
            "The pseudonym key can't be made",
            where=str(path),
            got=os.strerror(error.errno or 0),
            remedy=f"make the folder writable, or set {KEY_FILE_VARIABLE}",
        ) from None


def _read_key(path: Path) -> bytes:
    try:
        with path.open() as file:
            status, text = os.fstat(file.fileno()), file.read(4 * KEY_BYTES).strip()
    except FileNotFoundError:
        raise KeyFileError(
            "The pseudonym key is missing",
            where=str(path),
            remedy="copy it from the machine that made this lake's pseudonyms (mode 0600), or "
            f"point {KEY_FILE_VARIABLE} at it; on a cluster every node needs it",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(
            "The pseudonym key can't be read", where=str(path), got=type(error).__name__
        ) from None
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise KeyFileError(
            "The pseudonym key is open to others",
            where=str(path),
            got=f"mode {mode:04o}",
            remedy=f"run: chmod 600 {path}",
        )
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        # What was found is not shown: a damaged key is still most of a key.
        raise KeyFileError(
            "The pseudonym key is damaged",
            where=str(path),
            remedy=f"it holds {2 * KEY_BYTES} hex digits; restore it from a backup",
        )
    return bytes.fromhex(text)
