"""Which cluster a command talks to, and the token it shows there.

Whoever reaches a Ray cluster may run code on it, so an address beyond this machine needs a token.
Ray 2.60 writes its own token file with the umask, readable by everybody on most machines; such a
file is refused here.
"""

import ipaddress
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from schemas.errors import UsageError
from schemas.masking import masked

AUTH_MODE = "RAY_AUTH_MODE"
TOKEN_MODE = "token"  # noqa: S105 - the mode's name
TOKEN_VARIABLE = "RAY_AUTH_TOKEN"  # noqa: S105 - the variable's name
TOKEN_PATH_VARIABLE = "RAY_AUTH_TOKEN_PATH"  # noqa: S105 - the variable's name
DEFAULT_ADDRESS = "http://127.0.0.1:8265"
"""Where the dashboard of a cluster on this machine listens."""
_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_TOKEN_BYTES = 32
_WHERE_TOKENS_LIE = (
    f"set {TOKEN_PATH_VARIABLE} to a file of mode 0600 that holds the cluster's token, "
    "or put it into ~/.ray/auth_token"
)


@dataclass(frozen=True)
class Access:
    """A cluster's address, and the token for it if there is one."""

    url: str
    token: SecretStr | None

    @property
    def headers(self) -> dict[str, str]:
        """What every request to the cluster carries."""
        if self.token is None:
            return {}
        return {"Authorization": f"Bearer {self.token.get_secret_value()}"}

    @property
    def is_local(self) -> bool:
        """Whether the address is this machine's loopback."""
        return is_loopback(self.url)


def find_access(address: str | None, *, allow_no_token: bool = False) -> Access:
    """The cluster of ``address``, of the environment, or of this machine, with its token.

    Raises:
        UsageError: if the address can't be used, the token file is open to others, or there is no
            token for an address beyond this machine and ``allow_no_token`` does not say so.
    """
    access = Access(cluster_url(address), find_token())
    if access.token is None and not access.is_local and not allow_no_token:
        raise UsageError(
            "There is no token for a cluster beyond this machine",
            where=access.url,
            remedy=f"{_WHERE_TOKENS_LIE}; --allow-no-token goes there without one",
        )
    return access


def cluster_url(address: str | None) -> str:
    """The address of a cluster's dashboard, ``http(s)://HOST:PORT``.

    Raises:
        UsageError: if it is none, or holds credentials.
    """
    named = (os.environ.get(name) for name in _ADDRESS_VARIABLES)
    url = address or next((one for one in named if one), DEFAULT_ADDRESS)
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise UsageError(
            "The cluster's address holds credentials",
            got=f"{parts.scheme}://***@{parts.netloc.rpartition('@')[2]}",
            remedy=_WHERE_TOKENS_LIE,
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            "Jobs are submitted to a cluster's dashboard",
            got=masked(url),
            remedy=f"write --address http://HOST:8265; without it {DEFAULT_ADDRESS} is used",
        )
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine and can't leave it."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def default_token_file() -> Path:
    """Where Ray looks for a token when nothing else is said."""
    return Path.home() / ".ray" / "auth_token"


def token_files() -> list[Path]:
    """Where a token may lie on this machine, whether or not there is one."""
    named = os.environ.get(TOKEN_PATH_VARIABLE)
    return [*([Path(named).expanduser()] if named else []), default_token_file()]


def find_token() -> SecretStr | None:
    """The token, from the places Ray looks at, in its order; none if there is none.

    Raises:
        UsageError: if the token file is missing though named, open to others, or unreadable.
    """
    if token := os.environ.get(TOKEN_VARIABLE, "").strip():
        return SecretStr(token)
    if named := os.environ.get(TOKEN_PATH_VARIABLE):
        return read_token(Path(named).expanduser())
    path = default_token_file()
    return read_token(path) if path.exists() else None


def read_token(path: Path) -> SecretStr:
    """Read a token file that only its owner can read.

    Raises:
        UsageError: if it is missing, empty, unreadable, or open to others.
    """
    try:
        with path.open() as file:
            mode, text = stat.S_IMODE(os.fstat(file.fileno()).st_mode), file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise UsageError(
            "The token file can't be read",
            where=str(path),
            got=str(reason),
            remedy=_WHERE_TOKENS_LIE,
        ) from None
    if mode & 0o077:
        raise UsageError(
            "The token file is open to others",
            where=str(path),
            got=f"mode {mode:04o}",
            remedy=f"run: chmod 600 {path}; if others use this machine, make a new token",
        )
    if not text:
        raise UsageError("The token file is empty", where=str(path), remedy=_WHERE_TOKENS_LIE)
    return SecretStr(text)


def secure_default_token() -> None:
    """See to it that a Ray started here takes a token that only its owner can read.

    Makes the default token file where no token is said; Ray would make one that everybody reads.
    One that Ray made so is closed.

    Raises:
        UsageError: if the token file that the environment names can't be used.
    """
    if os.environ.get(TOKEN_VARIABLE) or os.environ.get(TOKEN_PATH_VARIABLE):
        find_token()
        return
    path = default_token_file()
    try:
        if not path.exists():
            _create_token(path)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise UsageError(
            "The token of the embedded Ray can't be written",
            where=str(path),
            got=str(error.strerror),
            remedy=f"set {TOKEN_PATH_VARIABLE} to a token file of mode 0600, or HOME",
        ) from None


def _create_token(path: Path) -> None:
    """Make a token file that appears whole; a racing process's file stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(_TOKEN_BYTES))
        # Unlike a rename, a link fails where the name is taken.
        with suppress(FileExistsError):
            os.link(staged, path)
    finally:
        staged.unlink()
