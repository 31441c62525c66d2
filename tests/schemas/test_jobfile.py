"""Job files: what a good one becomes, and every mistake of a bad one with its line."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import JobFileError, Mistake, UsageError
from schemas.jobfile import JobFile, load
from schemas.yamltree import Expansion, parse

Load = Callable[..., JobFile]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    """Load a job file from its text."""

    def load_text(text: str, env: Mapping[str, str] | None = None, **options: object) -> JobFile:
        file = tmp_path / "job.yaml"
        file.write_text(text, encoding="utf-8")
        return load(file, env=env or {}, **options)

    return load_text


@pytest.fixture
def mistakes(loaded: Load) -> Callable[..., tuple[Mistake, ...]]:
    """The mistakes of a job file that is wrong."""

    def find(text: str, **options: object) -> tuple[Mistake, ...]:
        with pytest.raises(JobFileError) as caught:
            loaded(text, **options)
        return caught.value.mistakes

    return find


GOOD = """\
lake: ${LAKE:-./lake}
jobs:
  - kind: ingest
    name: kermany
    source: ${DATA:-data}/cxr
    fields:
      path: '(?P<label>A|B)/.*'
  - kind: clean
    dataset: kermany
    phash: {max_distance: 3}
  - kind: train
    dataset: kermany
    split: kermany-split
    model: pneumonia
    optimizer: {learning_rate: 1e-3}
  - kind: train
    name: second
    dataset: kermany
    split: kermany-split
    model: other
profiles:
  smoke:
    lake: ./smoke
    jobs:
      train: {epochs: 1, optimizer: {weight_decay: 0.5}}
      clean: {phash: null}
  all:
    jobs:
      second: {epochs: 3}
"""


def test_a_good_file_becomes_specs_in_order(loaded: Load) -> None:
    found = loaded(GOOD)
    assert found.lake == "./lake"
    assert [job.kind for job in found.jobs] == ["ingest", "clean", "train", "train"]
    assert [job.name for job in found.jobs] == ["kermany", "clean", "train", "second"]
    ingest, clean, train, _ = found.jobs
    assert ingest.source == "data/cxr"
    assert ingest.dataset == "kermany"
    assert clean.phash.max_distance == 3
    # PyYAML's own rules would make this text.
    assert train.optimizer.learning_rate == 0.001


def test_variables_expand_and_win_over_defaults(loaded: Load) -> None:
    found = loaded(GOOD, env={"LAKE": "s3://bucket/lake", "DATA": ""})
    assert found.lake == "s3://bucket/lake"
    assert found.jobs[0].source == "data/cxr"


def test_an_unquoted_variable_may_be_a_number(loaded: Load) -> None:
    text = "lake: l\njobs:\n  - kind: clean\n    dataset: d\n    min_side: "
    assert loaded(text + "${SIDE:-7}\n").jobs[0].min_side == 7
    assert loaded(text + "${SIDE}\n", env={"SIDE": "9"}).jobs[0].min_side == 9


def test_a_dollar_can_be_written(loaded: Load) -> None:
    assert loaded("lake: a/$${X}/$5\njobs:\n  - {kind: clean, dataset: d}\n").lake == "a/${X}/$5"


def test_a_profile_merges_deeply_by_name_before_kind(loaded: Load) -> None:
    found = loaded(GOOD, profile="smoke")
    assert found.lake == "./smoke"
    _, clean, train, second = found.jobs
    assert clean.phash is None
    # `train` is the name of a job, so the job called second keeps its values.
    assert train.epochs == 1
    assert train.optimizer.weight_decay == 0.5
    assert train.optimizer.learning_rate == 0.001
    assert second.epochs == 20


def test_a_profile_reaches_all_jobs_of_a_kind(loaded: Load) -> None:
    text = GOOD.replace("  - kind: train\n    dataset", "  - kind: train\n    name: a\n    dataset")
    text = text.replace("second: {epochs: 3}", "train: {epochs: 5}\n      second: {epochs: 3}")
    _, _, first, second = loaded(text, profile="all").jobs
    assert first.epochs == 5
    assert second.epochs == 3


def test_settings_win_over_profiles_in_their_order(loaded: Load) -> None:
    sets = ["train.epochs=4", "jobs.second.classes=[x, y]", "train.epochs=6", "lake=other"]
    found = loaded(GOOD, profile="smoke", sets=sets)
    assert found.lake == "other"
    assert found.jobs[2].epochs == 6
    assert found.jobs[3].classes == ("x", "y")


def test_a_setting_reaches_deep_and_a_name_may_hold_dots(loaded: Load) -> None:
    text = "lake: l\njobs:\n  - {kind: clean, name: v1.2, dataset: d}\n"
    found = loaded(text, sets=["v1.2.phash.max_distance=8", "clean.execution.workers=2"])
    assert found.jobs[0].phash.max_distance == 8
    assert found.jobs[0].execution.workers == 2


def test_the_lake_of_the_command_replaces_that_of_the_file(loaded: Load) -> None:
    text = "lake: ${NOT_SET}\njobs:\n  - {kind: clean, dataset: d}\n"
    assert loaded(text, lake="./here").lake == "./here"
    assert loaded(text.partition("\n")[2], lake="./here").lake == "./here"


def test_a_variable_that_no_one_needs_may_be_undefined(loaded: Load) -> None:
    text = GOOD.replace("lake: ./smoke", "lake: ${BUCKET}/lake")
    assert loaded(text).lake == "./lake"
    with pytest.raises(JobFileError, match=r"job\.yaml:23: lake: .* BUCKET is not defined"):
        loaded(text, profile="smoke")


TEN = """\
lake: gs://bucket/lake
jobs:
  - kind: ingest
    name: kermany
    source: ${NO_SUCH_VARIABLE}
  - kind: clean
    dataset: kermany
    min_side: -1
    min_side: 100
    phash:
      max_distanc: 4
  - kind: trian
    dataset: kermany
  - kind: train
    dataset: kermany
    split: kermany split
    epochs: many
  - kind: clean
    dataset: kermany
"""


def test_ten_mistakes_are_told_at_once(mistakes: Callable[..., tuple[Mistake, ...]]) -> None:
    found = mistakes(TEN)
    assert [(one.line, one.field) for one in found] == [
        (1, "lake"),
        (5, "jobs.kermany.source"),
        (8, "jobs.clean.min_side"),
        (9, "jobs[1].min_side"),
        (11, "jobs.clean.phash.max_distanc"),
        (12, "jobs.trian.kind"),
        (14, "jobs.train.model"),
        (16, "jobs.train.split"),
        (17, "jobs.train.epochs"),
        (18, "jobs[4].name"),
    ]
    assert all(one.file.endswith("job.yaml") and one.what and one.allowed for one in found)
    got = {one.field: one.got for one in found}
    assert got["jobs.kermany.source"] == "${NO_SUCH_VARIABLE}"
    assert got["jobs.clean.min_side"] == "-1"
    assert got["jobs.train.epochs"] == "many"
    allowed = {one.field: one.allowed for one in found}
    assert allowed["lake"] == "a path, or s3://bucket/prefix"
    assert allowed["jobs.clean.phash.max_distanc"] == "max_distance"
    assert allowed["jobs.clean.min_side"] == "a whole number >= 0"
    assert allowed["jobs.trian.kind"].startswith("phantoms, ingest, annotate")
    what = {one.field: one.what for one in found}
    assert "did you mean train" in what["jobs.trian.kind"]
    assert "did you mean max_distance" in what["jobs.clean.phash.max_distanc"]


def job(fields: str, kind: str = "train") -> str:
    required = {
        "train": "dataset: d\n    split: s\n    model: m\n    ",
        "clean": "dataset: d\n    ",
    }
    return f"lake: l\njobs:\n  - kind: {kind}\n    {required.get(kind, '')}{fields}\n"


@pytest.mark.parametrize(
    ("text", "line", "field", "what", "got", "allowed"),
    [
        ("lake: [\n", 2, "the file", "is no YAML", "", ""),
        ("lake: l\n\tjobs: 3\n", 2, "the file", "is no YAML", "", ""),
        ("lake: l\njobs: {a: ${X}}\n", 2, "the file", "wants quotes", "", ""),
        ("lake: l\njobs: \x01\n", 2, "the file", "control character", "", ""),
        ("a: 1\n---\nb: 2\n", 2, "the file", "is no YAML", "", ""),
        ("- 1\n", 1, "the file", "is no mapping", "a list of 1", "lake, night, notify, jobs"),
        ("", 1, "the file", "is no mapping", "", "lake, night, notify, jobs"),
        ("lake: l\n", 1, "jobs", "is missing", "", "at least one job"),
        ("lake: l\njobs: []\n", 2, "jobs", "is empty", "a list of 0", "at least one"),
        ("lake: l\njobs:\n  a: 1\n", 2, "jobs", "is no list", "a mapping of a", "a list"),
        ("lake: l\njobs:\n  - 3\n", 3, "jobs[0]", "is no job", "3", "a mapping"),
        ("lake: l\njobs:\n  - name: x\n", 3, "jobs.x.kind", "is missing", "", "ingest, annotate"),
        ("lake: l\njobs:\n  - dataset: x\n", 3, "jobs[0].kind", "is missing", "", "ingest"),
        ("lake: ''\njobs:\n  - {kind: clean, dataset: d}\n", 1, "lake", "no place", "''", "s3://"),
        ("lake: 3\njobs:\n  - {kind: clean, dataset: d}\n", 1, "lake", "no place", "3", "a path"),
        (job("epochs: 1.5"), 7, "jobs.train.epochs", "wrong type", "1.5", "a whole number >= 1"),
        (job("epochs: true"), 7, "jobs.train.epochs", "wrong type", "true", "whole number"),
        (job("epochs: '3'"), 7, "jobs.train.epochs", "wrong type", "'3'", "whole number"),
        (job("nightly: yes"), 7, "jobs.train.nightly", "wrong type", "yes", "true or false"),
        (job("start: 5"), 7, "jobs.train.start", "in quotes", "5", "text"),
        (job("classes: a"), 7, "jobs.train.classes", "wrong type", "a", "a list of: text"),
        (job("classes: [a, [b]]"), 7, "jobs.train.classes[1]", "wrong type", "a list of 1", "text"),
        (job("epochs: 0"), 7, "jobs.train.epochs", "out of range", "0", ">= 1"),
        (job("max_reject_share: 2"), 7, "jobs.train.max_reject_share", "out of range", "2", "<= 1"),
        (job("max_reject_share: .nan"), 7, "jobs.train.max_reject_share", "not finite", ".nan", ""),
        (
            job("preprocess:\n      resize: strech"), 8, "jobs.train.preprocess.resize",
            "did you mean stretch", "strech", "letterbox, stretch",
        ),
        (
            job("preprocess: {channels: 2}"), 7, "jobs.train.preprocess.channels",
            "not one of", "2", "1, 3",
        ),
        (
            job("preprocess: {window: [1, 2, 3]}"), 7, "jobs.train.preprocess.window",
            "wrong length", "a list of 3", "a list of 2: a number, a number",
        ),
        (job("optimizer: 5"), 7, "jobs.train.optimizer", "wrong type", "5", "learning_rate"),
        (job("name: a b"), 7, "jobs.a b.name", "not allowed", "a b", "[A-Za-z0-9]"),
        (job("min_sid: 5", "clean"), 5, "jobs.clean.min_sid", "mean min_side?", "5", "min_side"),
        (job("phash: !x {}", "clean"), 5, "jobs[0].phash", "has a tag", "!x", "none"),
        (job("min_side: ${A-3}", "clean"), 5, "jobs.clean.min_side", "can't be", "", "${NAME}"),
        (job("min_side: ${A:-${B}}", "clean"), 5, "jobs.clean.min_side", "can't be", "", ""),
        (
            "lake: l\njobs:\n  - kind: split\n    dataset: d\n    parts:\n      train: 0.5\n",
            5, "jobs.split.parts", "up to 1, not to 0.8", "a mapping of train", "train, val, test",
        ),
        (
            "lake: l\njobs:\n  - kind: ingest\n    source: s\n    fields:\n      path: '(?P<x'\n",
            6, "jobs.ingest.fields.path", "no regular expression", "'(?P<x'", "text",
        ),
    ],
)  # fmt: skip
def test_a_mistake_has_its_line_value_and_what_is_allowed(
    mistakes: Callable[..., tuple[Mistake, ...]],
    *,
    text: str,
    line: int,
    field: str,
    what: str,
    got: str,
    allowed: str,
) -> None:
    found = [one for one in mistakes(text) if what in one.what]
    assert [(one.line, one.field) for one in found] == [(line, field)]
    assert got in found[0].got
    assert allowed in found[0].allowed


def test_one_wrong_value_is_one_mistake(mistakes: Callable[..., tuple[Mistake, ...]]) -> None:
    # An undefined variable leaves no value: no second mistake about its type or range.
    assert len(mistakes(job("epochs: ${NOPE}"))) == 1
    assert len(mistakes(job("name: 5"))) == 1
    # The default of another field can't be made of it either, which is no mistake of its own.
    text = "lake: l\njobs:\n  - kind: split\n    dataset: a b\n"
    assert len(mistakes(text)) == 1


@pytest.mark.parametrize(
    ("profiles", "line", "field", "what"),
    [
        ("profiles: 3", 5, "profiles", "is no mapping"),
        ("profiles:\n  p: 3", 6, "profiles.p", "is no mapping"),
        ("profiles:\n  p: {jobs: 3}", 6, "profiles.p.jobs", "is no mapping"),
        ("profiles:\n  p: {job: {}}", 6, "profiles.p.job", "did you mean jobs"),
        ("profiles:\n  p:\n    jobs:\n      clena: {}", 8, "profiles.p.jobs.clena", "mean clean"),
        ("profiles:\n  p: {jobs: {clean: 3}}", 6, "profiles.p.jobs.clean", "is no mapping"),
        (
            "profiles:\n  p: {jobs: {clean: {kind: x}}}", 6, "profiles.p.jobs.clean.kind",
            "can't be changed",
        ),
        # The values of a profile are checked although it is not chosen.
        ("profiles:\n  p: {jobs: {clean: {min_side: x}}}", 6, "jobs.clean.min_side", "wrong type"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_profile(
    mistakes: Callable[..., tuple[Mistake, ...]], profiles: str, line: int, field: str, what: str
) -> None:
    text = f"lake: l\njobs:\n  - kind: clean\n    dataset: d\n{profiles}\n"
    found = mistakes(text)
    assert [(one.line, one.field) for one in found] == [(line, field)]
    assert what in found[0].what


def test_an_unknown_profile_names_those_there_are(
    mistakes: Callable[..., tuple[Mistake, ...]],
) -> None:
    (found,) = mistakes(GOOD, profile="smok")
    assert (found.file, found.got, found.allowed) == ("--profile", "smok", "smoke, all")
    assert "did you mean smoke" in found.what


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("clean.min_side", "names nothing"),
        ("min_side=3", "names nothing"),
        ("nobody.min_side=3", "names nothing"),
        ("clean.name=x", "can't be set"),
        ("clean.min_side=[", "is no YAML"),
        ("clean.min_side=x", "wrong type"),
        ("clean.min_sid=3", "did you mean min_side"),
        ("clean.phash.max_distance=99", "out of range"),
        ("lake=ftp://x", "no place for a lake"),
    ],
)
def test_a_wrong_setting_is_told_by_its_number(
    mistakes: Callable[..., tuple[Mistake, ...]], setting: str, what: str
) -> None:
    text = "lake: l\njobs:\n  - kind: clean\n    dataset: d\n"
    (found,) = mistakes(text, sets=["clean.min_side=5", setting])
    assert (found.file, found.line) == ("--set", 2)
    assert what in found.what


SECRET = "wJalrXUtnFEMI/K7MDENG"


@pytest.mark.parametrize(
    "text",
    [
        f"lake: s3://key:{SECRET}@bucket/x\njobs:\n  - {{kind: clean, dataset: d}}\n",
        f"lake: l\njobs:\n  - {{kind: ingest, name: a, source: 's3://me:{SECRET}@b'}}\n",
        f"lake: l\njobs:\n  - {{kind: clean, dataset: 's3://me:{SECRET}@b'}}\n",
        f"lake: l\naws_secret_access_key: {SECRET}\njobs:\n  - {{kind: clean, dataset: d}}\n",
        "lake: ${LAKE}\njobs:\n  - {kind: clean, dataset: d}\n",
        f"lake: l\njobs: s3://me:{SECRET}@b\n",
        f"lake: l\njobs:\n  - {{kind: clean, dataset: d, name: 's3://me:{SECRET}@b'}}\n",
        f"lake: l\njobs:\n  - {{kind: clean, dataset: 'https://h/x?X-Amz-Signature={SECRET}'}}\n",
    ],
)
def test_a_secret_is_a_mistake_and_is_never_shown(
    mistakes: Callable[..., tuple[Mistake, ...]], text: str
) -> None:
    found = mistakes(text, env={"LAKE": f"s3://key:{SECRET}@bucket"})
    assert found
    assert SECRET not in repr(found)
    assert SECRET not in str(JobFileError(found))


def test_an_at_sign_alone_is_no_secret(loaded: Load) -> None:
    text = "lake: s3://bucket/a:b@c\njobs:\n  - {kind: clean, dataset: d}\n"
    assert loaded(text).lake == "s3://bucket/a:b@c"


LAUGHS = "a: &a [x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize("text", [LAUGHS, "a: &a\n  b: *a\n", f"a: {'[' * 5000}{']' * 5000}\n"])
def test_a_file_that_would_grow_without_bounds_is_refused(
    mistakes: Callable[..., tuple[Mistake, ...]], text: str
) -> None:
    (found,) = mistakes(text)
    assert "nested too deeply" in found.what


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"can't be read \(.*nothing.*No such file"):
        load(tmp_path / "nothing.yaml", env={})
    (tmp_path / "latin.yaml").write_bytes(b"lake: \xff\xfe\n")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        load(tmp_path / "latin.yaml", env={})


def test_the_studies_are_good_files() -> None:
    studies = Path(__file__).resolve().parents[2] / "studies"
    for file in sorted(studies.glob("*.yaml")):
        profiles = yaml.safe_load(file.read_text()).get("profiles", {})
        for profile in [None, *profiles]:
            assert load(file, profile=profile, env={"DATA": "data"}).jobs


VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)


@given(
    st.recursive(
        VALUES.filter(lambda value: value not in (float("inf"), float("-inf"))),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_what_pyyaml_writes_is_read_as_it_was(value: object) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    tree, mistakes = parse(text.replace("${", "$${"), "f")
    assert mistakes == []
    found = Expansion({}).value(tree, ())
    assert found == value


ALTERNATIVES = """\
lake: ./lake
jobs:
  - kind: train
    dataset: d
    split: s
    model: m
    unfrozen: -1
    stages: [{epochs: 1, learning_rate: 1, unfrozen: some}]
    svm: {gamma: x}
"""


def test_a_value_that_may_be_one_of_several_things_has_one_mistake(
    mistakes: Callable[..., tuple[Mistake, ...]],
) -> None:
    assert [(one.line, one.field, one.what, one.allowed) for one in mistakes(ALTERNATIVES)] == [
        (7, "jobs.train.unfrozen", "is out of range", "all or a whole number >= 0 and <= 5"),
        (
            8,
            "jobs.train.stages[0].unfrozen",
            "is not one of the allowed values",
            "all or a whole number >= 0 and <= 5",
        ),
        (9, "jobs.train.svm.gamma", "is not one of the allowed values", "scale or a number > 0"),
    ]
