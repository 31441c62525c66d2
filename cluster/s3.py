"""How S3 is reached: the endpoint and the credentials by boto3's standard chain, for two clients.

obstore moves object bytes and deltalake reads and writes the Delta log. Both are told the same
endpoint, the same region and the same credentials, and nothing is left to what either would pick
up from the environment by rules of its own.
"""

import ipaddress
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError
from obstore.store import S3Store

from schemas.errors import LakeError

if TYPE_CHECKING:
    from obstore.store import RetryConfig, S3Credential

ALLOW_HTTP = "AWS_ALLOW_HTTP"
"""Variable that allows unencrypted HTTP to another machine."""
_TOKENS = ("AWS_SESSION_TOKEN", "AWS_TOKEN")
"""Variables from which deltalake takes a session token."""
_MOST_RETRIES = 8
_RETRY_FOR = timedelta(minutes=3)
_FIRST_DELAY, _LONGEST_DELAY = timedelta(milliseconds=100), timedelta(seconds=15)
_HELD_FOR = timedelta(minutes=8)
"""For how long a client may use credentials before it asks again.

botocore renews expiring ones when less than ten minutes are left, so what it hands out lives at
least as long.
"""


class S3Access:
    """What both clients need to reach S3."""

    def __init__(self, credentials: Credentials, region: str, endpoint: str) -> None:
        self._credentials, self.region, self.endpoint = credentials, region, endpoint
        self._allow_http = endpoint.startswith("http:")

    def __repr__(self) -> str:
        return f"S3Access(region={self.region!r}, endpoint={self.endpoint!r})"

    @staticmethod
    def standard() -> "S3Access":
        """By boto3's chain: environment, profile, SSO, process, container or instance role.

        Raises:
            LakeError: if there are no credentials, the profile is unknown, or the endpoint would
                be spoken to unencrypted.
        """
        core = botocore.session.Session()
        try:
            session = boto3.Session(botocore_session=core)
            credentials = session.get_credentials()
            region = session.region_name or "us-east-1"
            endpoint = _configured_endpoint(core) or _endpoint_of_aws(region)
        except BotoCoreError as error:
            # Its message names files and profiles of the user, and no secret; the class is enough.
            raise LakeError(
                "The S3 credentials can't be read",
                got=type(error).__name__,
                remedy="check AWS_PROFILE and the files in ~/.aws; an SSO session needs "
                "`aws sso login`",
            ) from error
        if credentials is None:
            raise LakeError(
                "No S3 credentials found",
                remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or an instance "
                "role",
            )
        _check_encrypted(endpoint)
        return S3Access(credentials, region, endpoint)

    def store(self, root: str) -> S3Store:
        """The object store below ``s3://bucket/prefix``; objects are addressed by path."""
        retries: RetryConfig = {
            "max_retries": _MOST_RETRIES,
            "retry_timeout": _RETRY_FOR,
            "backoff": {"init_backoff": _FIRST_DELAY, "max_backoff": _LONGEST_DELAY},
        }
        bucket, _, prefix = root.removeprefix("s3://").partition("/")
        # `S3Store.from_url` does not know `aws_endpoint_url_s3` (obstore 0.12).
        return S3Store(
            bucket,
            prefix=prefix or None,
            config={
                "region": self.region,
                "conditional_put": "etag",
                "virtual_hosted_style_request": False,
                # Whatever is left out here, obstore takes from the environment.
                "endpoint": self.endpoint,
                "aws_endpoint_url_s3": self.endpoint,
                "skip_signature": False,
                "unsigned_payload": False,
                "s3_express": False,
            },
            client_options={"allow_http": self._allow_http},
            retry_config=retries,
            credential_provider=_Provider(self._frozen),
        )

    def delta_options(self) -> dict[str, str]:
        """Options for deltalake, with the credentials that hold now.

        Raises:
            LakeError: if the environment has a session token that is not of these credentials.
        """
        key, secret, token = self._frozen()
        if not token:
            _refuse_stray_token()
        return {
            # Whatever is left out here, deltalake takes from the environment.
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            **({"AWS_SESSION_TOKEN": token} if token else {}),
            "AWS_REGION": self.region,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ALLOW_HTTP": str(self._allow_http).lower(),
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
            "AWS_SKIP_SIGNATURE": "false",
            "AWS_UNSIGNED_PAYLOAD": "false",
            "AWS_S3_EXPRESS": "false",
            # A commit is a create-only put; the variables of the environment must not change that.
            "AWS_CONDITIONAL_PUT": "etag",
            "AWS_S3_ALLOW_UNSAFE_RENAME": "false",
            "max_retries": str(_MOST_RETRIES),
            "retry_timeout": f"{_RETRY_FOR.total_seconds():.0f}s",
            "backoff_config.init_backoff": f"{_FIRST_DELAY.total_seconds() * 1000:.0f}ms",
            "backoff_config.max_backoff": f"{_LONGEST_DELAY.total_seconds():.0f}s",
        }

    def _frozen(self) -> tuple[str, str, str | None]:
        """Access key, secret and session token as they are now; renewed where they expire."""
        frozen = self._credentials.get_frozen_credentials()
        if not frozen.access_key or not frozen.secret_key:
            raise LakeError("The S3 credentials are empty", remedy="check AWS_ACCESS_KEY_ID")
        return frozen.access_key, frozen.secret_key, frozen.token


class _Provider:
    """What obstore calls for credentials, and again once they may be out of date."""

    def __init__(self, frozen: Callable[[], tuple[str, str, str | None]]) -> None:
        self._frozen = frozen

    def __call__(self) -> "S3Credential":
        key, secret, token = self._frozen()
        return {
            "access_key_id": key,
            "secret_access_key": secret,
            "token": token,
            "expires_at": datetime.now(UTC) + _HELD_FOR,
        }


def _configured_endpoint(core: botocore.session.Session) -> str | None:
    """The endpoint of S3 where one is set: variables first, then the profile; none for AWS."""
    if core.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    provider = ConfiguredEndpointProvider(core.full_config, core.get_scoped_config(), "s3")
    found: str | None = provider.provide()
    return found.rstrip("/") if found else None


def _endpoint_of_aws(region: str) -> str:
    """AWS's own endpoint of a region; in China it lies below another domain."""
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://s3.{region}.{domain}"


def _refuse_stray_token() -> None:
    """Refuse a session token in the environment where the credentials in use have none.

    deltalake would send it with them. It can't be told to send none: an empty one is sent as well,
    and AWS refuses that.
    """
    found = next((name for name in os.environ if name.upper() in _TOKENS), None)
    if found:
        raise LakeError(
            "A session token in the environment belongs to other S3 credentials than those in use",
            where=found,
            remedy=f"run `unset {found}`",
        )


def _check_encrypted(endpoint: str) -> None:
    """Refuse plain HTTP to another machine unless it is allowed by name."""
    parts = urlsplit(endpoint)
    allowed = os.environ.get(ALLOW_HTTP, "").lower() in ("1", "true", "yes")
    if parts.scheme != "http" or allowed or _is_loopback(parts.hostname or ""):
        return
    raise LakeError(
        "The S3 endpoint is not encrypted",
        where="AWS_ENDPOINT_URL",
        got=f"http://{parts.hostname}",
        remedy=f"use https, or set {ALLOW_HTTP}=true if the network in between is yours",
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
