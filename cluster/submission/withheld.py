"""What does not go with a package: environments, caches, secrets and images.

A package lies in the cluster's memory, where every job can read it.
"""

import os
from pathlib import Path, PurePath

from pathspec import GitIgnoreSpec

from cluster.submission.access import token_files
from schemas.errors import RejectedImage
from workers.pixels.decode.sniff import sniff
from workers.pseudonyms import key_file

_SECRETS_BY_NAME = (
    *("token", "token.txt", "*.token", "*-token", "*_token", ".netrc", "_netrc", ".pgpass"),
    *("credentials", ".git-credentials", "*credentials*.json", "*credentials*.csv", "kubeconfig"),
    *("*.env", ".env.*", ".envrc", "secrets.json", "secrets.toml", "secrets.y*ml", "*.tfvars"),
    *(".npmrc", ".pypirc", "pip.conf", ".boto", ".s3cfg"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk"),
)
"""Of files; a folder of such a name may be a package of code."""
NEVER = GitIgnoreSpec.from_lines(
    [
        # version control, environments, caches
        *(".git/", ".hg/", ".svn/", ".venv/", "venv/", "node_modules/", ".tox/", ".nox/"),
        *("__pycache__/", "*.py[cod]", ".*_cache/", ".cache/", ".hypothesis/", "*.egg-info/"),
        # secrets
        *_SECRETS_BY_NAME,
        *(f"!{name}/" for name in _SECRETS_BY_NAME),
        ".env/",  # an environment in most places
        *("*.key", "*.pem", "*.p12", "*.pfx", "*.jks", "*.ppk", "*.kdbx"),
        *(".aws/", ".azure/", ".docker/", ".gcloud/", ".gnupg/", ".kube/", ".ssh/", ".ray/"),
        ".rayward/",
    ]
)
"""What stays whatever an ignore file says."""
_SECRET_FILES = (
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "NETRC",
)
"""Variables that name a file of secrets."""
_PICTURES = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib", ".webp"),
        *(".gif", ".jp2", ".j2k", ".jpx", ".jls", ".heic", ".avif", ".pgm", ".ppm", ".pnm"),
        *(".dcm", ".dicom", ".ima", ".nii", ".mgz", ".mha", ".mhd", ".nrrd", ".nhdr"),
        *(".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".czi"),
    )
)
_PICTURE_FORMATS = frozenset({"png", "jpeg", "tiff", "bmp", "webp", "dicom"})
_HEAD = 4096
"""Bytes that tell a picture without a name of one."""
_LONG = 16
"""Characters from which on a token is unlikely to stand in a text by chance."""


def secret_files() -> list[Path]:
    """The files of secrets that the environment names: Ray's token, the pseudonym key, AWS' ..."""
    named = [Path(os.environ[name]) for name in _SECRET_FILES if os.environ.get(name)]
    return [*token_files(), key_file(), *(one.expanduser() for one in named)]


def is_picture(file: Path) -> bool:
    """Whether a file holds an image by its name or, as in many DICOM archives, by its content."""
    name = PurePath(file.name.lower().removesuffix(".gz"))
    if name.suffix in _PICTURES:
        return True
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    try:
        return sniff(head) in _PICTURE_FORMATS
    except RejectedImage:
        return False


def holds_token(content: bytes, token: str) -> bool:
    """Whether a file's content is the token, or has it somewhere."""
    sought = token.encode()
    return content.strip() == sought or (len(token) >= _LONG and sought in content)
