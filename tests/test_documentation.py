"""Every command and every kind has help, a place in the README and an example that runs."""

import re
import subprocess
import sys
from pathlib import Path

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from cluster.cli import app
from schemas.specs import SPECS

CHECKOUT = Path(__file__).resolve().parent.parent


def commands() -> dict[str, TyperCommand]:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return {name: one for name, one in group.commands.items() if isinstance(one, TyperCommand)}


def test_each_command_has_help_and_stands_in_the_readme() -> None:
    readme = (CHECKOUT / "README.md").read_text()
    silent = [name for name, command in commands().items() if not (command.help or "").strip()]
    unnamed = [name for name in commands() if f"rayward {name}" not in readme]
    assert (silent, unnamed) == ([], [])


def test_each_option_has_help() -> None:
    silent = [
        f"{name} {parameter.name}"
        for name, command in commands().items()
        for parameter in command.params
        if isinstance(parameter, TyperOption) and not parameter.help
    ]
    assert silent == []


def test_each_kind_stands_in_the_readme_and_in_an_example() -> None:
    readme = (CHECKOUT / "README.md").read_text()
    examples = "\n".join(path.read_text() for path in (CHECKOUT / "studies").glob("*.yaml"))
    unnamed = [kind for kind in SPECS if f"`{kind}`" not in readme]
    unshown = [kind for kind in SPECS if not re.search(rf"kind: *{kind}\b", examples)]
    assert (unnamed, unshown) == ([], [])


def test_the_command_answers_quickly(tmp_path: Path) -> None:
    """Help in well under half a second of processor time, whatever else the machine does."""
    command = Path(sys.executable).with_name("rayward")
    timed = (
        "import os, subprocess, sys\n"
        "subprocess.run([sys.argv[1], '--help'], check=True, stdout=subprocess.DEVNULL)\n"
        "spent = os.times()\n"
        "print(spent.children_user + spent.children_system)\n"
    )
    seconds = [
        float(subprocess.check_output([sys.executable, "-c", timed, command], cwd=tmp_path))
        for _ in range(3)
    ]
    assert min(seconds) < 0.5
