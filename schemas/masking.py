"""Finding and masking credentials in text a user wrote, before any of it is shown again."""

import re

_IN_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/@\s:]*:[^@\s]+@")
_ACCESS_KEY = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")
_SIGNATURE = re.compile(r"(?i)(?P<name>X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s]+")
_BEARER = re.compile(r"(?i)(?P<name>\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}")
_QUERY = re.compile(
    r"(?i)(?P<name>[?&](?:access_?token|token|(?:api|account|access|secret|secret_?access)_?key"
    r"|password|secret|sig|signature)=)[^&\s]+"
)
_VARIABLE = re.compile(
    r"(?P<name>\b[A-Z][A-Z0-9_]*(?:SECRET|PASSWORD|TOKEN)(?![A-Z0-9_]*(?:_PATH|_FILE)\b)"
    r"[A-Z0-9_]*=)[^\s;,]+"
)
"""An assignment as shells and logs show it; the place of a secret is none."""
_NAMED = (_SIGNATURE, _BEARER, _QUERY, _VARIABLE)
_SECRET_NAME = re.compile(
    r"(?i)secret|passw|token|credential|(?:access|api|private|account)_?-?key"
)


def holds_secret(text: str) -> bool:
    """Whether ``text`` holds credentials: ``s3://key:secret@bucket``, an access key ..."""
    return any(pattern.search(text) for pattern in (_IN_URI, _ACCESS_KEY, *_NAMED))


def names_secret(name: str) -> bool:
    """Whether a field of this name would hold a secret."""
    return bool(_SECRET_NAME.search(name))


def masked(text: str) -> str:
    """Replace credentials in ``text`` by ``***``."""
    text = _IN_URI.sub(r"\g<scheme>***@", text)
    text = _ACCESS_KEY.sub("***", text)
    for pattern in _NAMED:
        text = pattern.sub(r"\g<name>***", text)
    return text
