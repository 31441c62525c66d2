import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import jobs.phantoms as kind
from schemas.errors import SourceError, UsageError
from schemas.protocols import SourceFile
from schemas.specs.phantoms import PhantomsSpec


class Objects:
    """The part of a store that planning asks: objects by uri."""

    def __init__(self, objects: Mapping[str, bytes] | None = None, failure: str = "") -> None:
        self._objects, self._failure = dict(objects or {}), failure

    def list_source(self, uri: str) -> Iterator[SourceFile]:
        if self._failure:
            raise SourceError("The source can't be listed", got=self._failure)
        found = sorted(one for one in self._objects if one.startswith(f"{uri}/"))
        if not found:
            raise SourceError("The source holds no files", where=uri)
        for one in found:
            yield SourceFile(one, one.removeprefix(f"{uri}/"), len(self._objects[one]), "e")

    def read_source(self, uri: str) -> bytes:
        return self._objects[uri]


def _spec(target: object, **fields: Any) -> PhantomsSpec:
    return PhantomsSpec(target=str(target), count=fields.pop("count", 10), **fields)


def _document(spec: PhantomsSpec) -> str:
    return json.dumps({"identity": kind.identity(spec)})


def _indices(plan: Any) -> list[int]:
    return plan.inputs["index"].to_pylist()


@pytest.mark.parametrize("exists", [False, True])
def test_a_new_corpus_is_planned_whole(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "corpus"
    if exists:
        target.mkdir()
    spec = _spec(target, execution={"shard_images": 4})
    plan = kind.plan(spec, Objects())
    assert _indices(plan) == list(range(10))
    assert plan.bounds == (0, 4, 8, 10)
    assert plan.counts.input == 0
    assert plan.params["target"] == str(target)
    assert plan.key == ("phantoms", str(target))
    assert target.exists() is exists


def test_large_images_make_small_shards(tmp_path: Path) -> None:
    spec = _spec(tmp_path, size=1024, execution={"shard_bytes": 4 * 2 * 1024**2})
    assert kind.plan(spec, Objects()).bounds == (0, 4, 8, 10)


def test_a_finished_corpus_is_up_to_date(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    (tmp_path / "corpus.json").write_text(_document(spec))
    (tmp_path / "generator.json").write_text(_document(spec))
    plan = kind.plan(spec, Objects())
    assert _indices(plan) == []
    assert plan.bounds == ()
    assert (plan.counts.up_to_date, plan.counts.input) == (10, 10)


def test_a_half_made_corpus_is_made_again(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    (tmp_path / "generator.json").write_text(_document(spec))
    (tmp_path / "images").mkdir()
    assert len(_indices(kind.plan(spec, Objects()))) == 10


@pytest.mark.parametrize("name", ["corpus.json", "generator.json"])
@pytest.mark.parametrize("change", [{"seed": 1}, {"count": 11}, {"modalities": {"ct": 1}}])
def test_another_corpus_is_not_overwritten(
    tmp_path: Path, name: str, change: dict[str, Any]
) -> None:
    (tmp_path / name).write_text(_document(_spec(tmp_path)))
    with pytest.raises(SourceError, match="another corpus") as caught:
        kind.plan(_spec(tmp_path, **change), Objects())
    assert "remove the old corpus" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "text"), [("scan.dcm", "x"), ("corpus.json", "no json"), ("corpus.json", "[1]")]
)
def test_a_directory_of_other_files_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match="not empty and holds no corpus") as caught:
        kind.plan(_spec(tmp_path), Objects())
    assert caught.value.where == str(tmp_path)


def test_targets_on_s3() -> None:
    spec = _spec("s3://bucket/corpus/")
    assert len(_indices(kind.plan(spec, Objects()))) == 10
    whole = Objects({"s3://bucket/corpus/corpus.json": _document(spec).encode()})
    plan = kind.plan(spec, whole)
    assert (_indices(plan), plan.params["target"]) == ([], "s3://bucket/corpus")
    with pytest.raises(SourceError, match="not empty"):
        kind.plan(spec, Objects({"s3://bucket/corpus/scan.dcm": b"x"}))
    with pytest.raises(SourceError, match="can't be listed"):
        kind.plan(spec, Objects(failure="access denied"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modalities": {"us": 0}}, "at least one modality"),
        ({"near_duplicate_share": 0.3, "broken_share": 0.2}, "half of a corpus"),
    ],
)
def test_impossible_specs_are_refused_before_anything_is_read(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        kind.plan(_spec(tmp_path, **fields), Objects())
    assert caught.value.exit_code == 2
    assert caught.value.remedy


def test_identity_holds_what_changes_bytes_and_nothing_else() -> None:
    base = _spec("a")
    same: Sequence[PhantomsSpec] = [_spec("b"), _spec("a", execution={"workers": 3}, name="n")]
    assert all(kind.identity(one) == kind.identity(base) for one in same)
    others = [
        _spec("a", seed=1),
        _spec("a", size=128),
        _spec("a", sites=2),
        _spec("a", scale_bar_share=0.5),
        _spec("a", broken_share=0.1),
    ]
    assert all(kind.identity(one) != kind.identity(base) for one in others)


def test_relative_and_home_targets_name_one_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    keys = {kind.key(_spec(target)) for target in ("c", "./c/", "~/c", f"file://{tmp_path}/c")}
    assert keys == {("phantoms", str(tmp_path / "c"))}


def test_run_makes_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def fake(spec: object, plan: Any, pool: object, store: object, **fields: Any) -> str:
        calls.append({"inputs": plan().inputs.num_rows, **fields})
        return "report"

    monkeypatch.setattr(kind, "run_batch", fake)
    spec = _spec(tmp_path)
    assert kind.run(spec, object(), Objects()) == "report"  # type: ignore[arg-type]
    assert calls == [{"inputs": 10, "key": kind.key(spec), "identity": kind.identity(spec)}]
