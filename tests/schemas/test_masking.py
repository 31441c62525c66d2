"""Secrets in text are found and masked; what only looks like one stays."""

import json

import pytest
from pydantic import SecretStr

from schemas.masking import holds_secret, masked, names_secret
from schemas.specs.base import JobSpec

SECRETS = [
    ("s3://key:hunter2@bucket/x", "s3://***@bucket/x"),
    ("s3://:hunter2@bucket/x", "s3://***@bucket/x"),
    ("s3://bucket/x?region=eu&secret_key=hunter2", "s3://bucket/x?region=eu&secret_key=***"),
    ("s3://bucket/x?secret_access_key=hunter2", "s3://bucket/x?secret_access_key=***"),
    ("got https://user:hunter2@host/a?b=1", "got https://***@host/a?b=1"),
    ("key AKIAABCDEFGHIJKLMNOP here", "key *** here"),
    ("https://h/x?X-Amz-Signature=abc123&y=1", "https://h/x?X-Amz-Signature=***&y=1"),
    ("Authorization: Bearer 0c1f9a77d3e2", "Authorization: Bearer ***"),
    ("https://hooks.example/x?token=hunter2&y=1", "https://hooks.example/x?token=***&y=1"),
    ("https://h/x?sig=a%2Bb", "https://h/x?sig=***"),
    ("RAY_AUTH_TOKEN=hunter2; next", "RAY_AUTH_TOKEN=***; next"),
    ("AWS_SECRET_ACCESS_KEY=hunter2", "AWS_SECRET_ACCESS_KEY=***"),
]
PLAIN = [
    "s3://bucket/prefix",
    "RAY_AUTH_TOKEN_PATH=/run/secrets/token",
    "RAYWARD_KEY_FILE=/run/keys/pseudonym.key",
    "a token is missing; name its file in RAY_AUTH_TOKEN_PATH",
    "bearer of news",
    "archive/x?y=1&side=left",
    "patient@hospital",
]


@pytest.mark.parametrize(("text", "shown"), SECRETS)
def test_secrets_are_masked(text: str, shown: str) -> None:
    assert holds_secret(text)
    assert masked(text) == shown
    assert masked(shown) == shown


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_stays(text: str) -> None:
    assert not holds_secret(text)
    assert masked(text) == text


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("AWS_SECRET_ACCESS_KEY", True),
        ("password", True),
        ("RAY_AUTH_TOKEN", True),
        ("api_key", True),
        ("RAYWARD_KEY_FILE", False),
        ("AWS_ENDPOINT_URL", False),
    ],
)
def test_names_of_secrets_are_known(name: str, secret: bool) -> None:
    assert names_secret(name) is secret


class Guarded(JobSpec):
    """A job with a secret in it."""

    kind: str = "guarded"
    door: SecretStr


def test_a_secret_by_type_shows_nowhere() -> None:
    spec = Guarded(door=SecretStr("hunter2"))
    shown = [repr(spec), str(spec), json.dumps(spec.model_dump(mode="json")), str(spec.identity())]
    assert all("hunter2" not in one for one in shown)
    assert all("**********" in one for one in shown)
