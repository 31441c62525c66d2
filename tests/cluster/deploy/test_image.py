"""What the image's recipe promises: checked by its lines, since nothing here can build it."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.cluster.deploy.manifests import CHECKOUT, DEPLOY

TEXT = (DEPLOY / "Dockerfile").read_text()
IGNORED = (DEPLOY / "Dockerfile.dockerignore").read_text()


def instructions(text: str) -> list[tuple[str, str]]:
    lines = [one for one in text.splitlines() if not one.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(one.split(None, 1)) for one in joined.splitlines() if one]  # type: ignore[misc]


def last_stages(text: str) -> list[tuple[str, str]]:
    """The instructions that make the image itself: from the stage that is not thrown away on."""
    found = instructions(text)
    start = next(i for i, (word, rest) in enumerate(found) if rest.endswith(" AS common"))
    return found[start:]


def is_not_root(text: str) -> bool:
    users = [rest for word, rest in last_stages(text) if word == "USER"]
    return bool(users) and re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]) is not None


def is_locked(text: str) -> bool:
    installs = [rest for word, rest in instructions(text) if word == "RUN" and "install" in rest]
    synced = [rest for word, rest in instructions(text) if word == "RUN" and "pip sync" in rest]
    pips = [rest for rest in installs if "-m pip install" in rest]
    offline = [rest for rest in installs if "uv pip install" in rest]
    return (
        len(synced) == 1
        and all("--require-hashes" in rest for rest in synced + pips)
        and all("--no-deps" in rest and "--offline" in rest for rest in offline)
    )


def is_compiled(text: str) -> bool:
    runs = [rest for word, rest in instructions(text) if word == "RUN" and "uv pip" in rest]
    return len(runs) == 2 and all("--compile-bytecode" in rest for rest in runs)


def asks_for_tokens(text: str) -> bool:
    env = " ".join(rest for word, rest in last_stages(text) if word == "ENV")
    return "RAY_AUTH_MODE=token" in env and "RAY_USAGE_STATS_ENABLED=0" in env


def holds_no_secret(text: str) -> bool:
    given = [rest for word, rest in instructions(text) if word in ("ENV", "ARG")]
    return not re.search(r"(?i)(secret_access|password|auth_token|index_url)\w*=", " ".join(given))


def names_two_devices(text: str) -> bool:
    found = instructions(text)
    stages = {rest.split(" AS ")[1]: rest.split(" AS ")[0] for _, rest in found if " AS " in rest}
    return stages.get("cpu") == stages.get("gpu") == "common" and found[-1] == ("FROM", "${DEVICE}")


def has_what_probes_call(text: str) -> bool:
    return any("install" in rest and " wget" in rest for _, rest in last_stages(text))


CHECKS: dict[str, Callable[[str], bool]] = {
    "not root": is_not_root,
    "locked": is_locked,
    "compiled": is_compiled,
    "tokens": asks_for_tokens,
    "no secret": holds_no_secret,
    "devices": names_two_devices,
    "probes": has_what_probes_call,
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_recipe_holds(name: str) -> None:
    assert CHECKS[name](TEXT)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("not root", "USER 1000:1000", "USER rayward"),
        ("not root", "USER 1000:1000\n", ""),
        ("not root", "USER 1000:1000", "USER 0:0"),
        ("locked", "--no-deps --require-hashes -r tools.lock", "-r tools.lock"),
        ("locked", "--require-hashes --compile-bytecode", "--compile-bytecode"),
        ("locked", "--offline --no-deps", "--no-deps"),
        ("compiled", "--require-hashes --compile-bytecode", "--require-hashes"),
        ("tokens", "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
        ("no secret", "ENV PATH", "ENV AWS_SECRET_ACCESS_KEY=x PATH"),
        ("devices", "FROM ${DEVICE}", "FROM gpu"),
        ("probes", "--no-install-recommends wget", "--no-install-recommends curl"),
    ],
)
def test_a_wrong_recipe_is_found(name: str, old: str, new: str) -> None:
    assert old in TEXT
    assert not CHECKS[name](TEXT.replace(old, new))


def test_what_is_copied_is_there_and_is_sent_to_the_build() -> None:
    sent = {line[1:] for line in IGNORED.splitlines() if line.startswith("!")}
    copied = [rest.split() for word, rest in instructions(TEXT) if word == "COPY"]
    sources = {one for words in copied for one in words[:-1] if not one.startswith("--")}
    for source in sources - {"/opt/rayward/.venv"}:
        assert (CHECKOUT / source).exists(), source
        assert source.partition("/")[0] in sent, source
    assert IGNORED.splitlines()[1] == "*"


def test_the_scripts_of_the_recipe_are_shell() -> None:
    """Each RUN is parsed by a shell; none is run."""
    shell = shutil.which("sh")
    assert shell
    for word, rest in instructions(TEXT):
        if word == "RUN":
            script = re.sub(r"--mount=\S+ *", "", rest)
            done = subprocess.run([shell, "-n", "-c", script], capture_output=True, check=False)
            assert done.returncode == 0, (script, done.stderr)


@pytest.mark.slow
def test_triton_is_on_demand_alone() -> None:
    """The image for CPUs leaves Triton out: what a CPU computes must do without it."""
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, timm\n"
        "net = timm.create_model('resnet10t', num_classes=2)\n"
        "net(torch.zeros(2, 3, 32, 32)).sum().backward()\n"
        "torch.optim.AdamW(net.parameters()).step()\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)
