"""Finding and masking credentials in text a user wrote, before any of it is shown again."""

import re

_IN_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/@\s:]+:[^@\s]+@")
_ACCESS_KEY = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")
_SIGNATURE = re.compile(r"(?i)(?P<name>X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s]+")
_SECRET_NAME = re.compile(
    r"(?i)secret|passw|token|credential|(?:access|api|private|account)_?-?key"
)


def holds_secret(text: str) -> bool:
    """Whether ``text`` holds credentials: ``s3://key:secret@bucket``, an access key ..."""
    return any(pattern.search(text) for pattern in (_IN_URI, _ACCESS_KEY, _SIGNATURE))


def names_secret(name: str) -> bool:
    """Whether a field of this name would hold a secret."""
    return bool(_SECRET_NAME.search(name))


def masked(text: str) -> str:
    """Replace credentials in ``text`` by ``***``."""
    text = _IN_URI.sub(r"\g<scheme>***@", text)
    text = _ACCESS_KEY.sub("***", text)
    return _SIGNATURE.sub(r"\g<name>***", text)
