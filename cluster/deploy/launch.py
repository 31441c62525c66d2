"""Creates the night's RayJob through the Kubernetes API: the whole of what the CronJob does.

The object's name is fixed, so the API server itself keeps two nights apart: as long as the last one
stands, creating the next is refused (exit code 5), and the next night takes what this one left.
It needs no right but to create RayJobs, and no client but the standard library.
"""

import argparse
import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts a pod's token, namespace and certificate authority."""

CREATED, FAILED, WRONG, STANDS = 0, 1, 2, 5
_TIMEOUT_S = 30


def launch(manifest: dict[str, Any], *, account: Path = ACCOUNT) -> tuple[int, str]:
    """Create the object in the pod's namespace; an exit code, and a line that says what came of it.

    The address of the API server is taken from the environment of the pod.
    """
    name = manifest["metadata"]["name"]
    try:
        request = _request(manifest, account)
        context = ssl.create_default_context(cafile=str(account / "ca.crt"))
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context):  # noqa: S310
            return CREATED, f"created the RayJob {name}"
    except urllib.error.HTTPError as error:
        return _refused(name, error)
    except OSError as error:
        reason = getattr(error, "reason", error)
        return FAILED, f"the API server can't be reached: {type(reason).__name__}"


def _request(manifest: dict[str, Any], account: Path) -> urllib.request.Request:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    namespace = (account / "namespace").read_text().strip()
    here = manifest | {"metadata": manifest["metadata"] | {"namespace": namespace}}
    return urllib.request.Request(
        f"https://{host}:{port}/apis/{manifest['apiVersion']}/namespaces/{namespace}/rayjobs",
        data=json.dumps(here).encode(),
        headers={
            "Authorization": f"Bearer {(account / 'token').read_text().strip()}",
            "Content-Type": "application/json",
        },
        method="POST",
    )


def _refused(name: str, error: urllib.error.HTTPError) -> tuple[int, str]:
    """What a refusal means; the server's own words say which field is wrong."""
    try:
        said = str(json.loads(error.read(65536))["message"])
    except (ValueError, KeyError, TypeError):
        said = error.reason
    if error.code == 409:
        return STANDS, f"the RayJob {name} of an earlier night still stands; nothing was created"
    remedy = {401: "is the service account's token mounted?", 403: "see access.yaml"}
    hint = f" ({remedy[error.code]})" if error.code in remedy else ""
    code = WRONG if error.code in (400, 403, 404, 422) else FAILED
    return code, f"the API server refused the RayJob {name}: {error.code} {said}{hint}"


def main() -> None:
    """Create the RayJob of a file, once."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("manifest", type=Path)
    path: Path = parser.parse_args().manifest
    manifest = yaml.safe_load(path.read_text())
    if isinstance(manifest, dict) and manifest.get("kind") == "RayJob":
        code, said = launch(manifest)
    else:
        code, said = WRONG, f"{path}: holds no RayJob"
    sys.stderr.write(f"{said}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
