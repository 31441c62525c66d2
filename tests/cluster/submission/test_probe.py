"""What the job that asks the nodes says where it can't ask them."""

from pathlib import Path
from typing import NoReturn

import pytest
import ray

from cluster.submission import probe
from schemas.errors import LakeError


def words(capfd: pytest.CaptureFixture[str]) -> str:
    """All that a probe leaves in its log, which must end with code 1."""
    with pytest.raises(SystemExit) as ended:
        probe.main()
    assert ended.value.code == 1
    out, err = capfd.readouterr()
    return str(out + err)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the question lies; the probe runs in its folder."""
    monkeypatch.chdir(tmp_path)
    question = tmp_path / probe.QUESTION_FILE
    question.parent.mkdir()
    question.write_text('{"lake": "./lake", "nonce": "n", "paths": []}')
    return question


def test_of_an_error_of_others_only_class_and_place_are_told(
    asked: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_options: object) -> NoReturn:
        raise ConnectionError("no cluster; see /archive/Miller^Anna")

    monkeypatch.setattr(ray, "init", refuse)
    said = words(capfd)
    assert said.startswith("error: ConnectionError at test_probe.py:")
    assert "Miller" not in said and "Traceback" not in said


def test_a_question_that_can_not_be_read_is_not_repeated(
    asked: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked.write_text("Miller^Anna")
    said = words(capfd)
    assert said.startswith("error: JSONDecodeError at decoder.py:")
    assert "Miller" not in said and "Traceback" not in said


def test_errors_of_ours_are_told_without_their_secrets(
    asked: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_options: object) -> NoReturn:
        raise LakeError("The lake is shut", where="s3://me:hidden@bucket")

    monkeypatch.setattr(ray, "init", refuse)
    said = words(capfd)
    assert said == "error: The lake is shut (s3://***@bucket).\n"
