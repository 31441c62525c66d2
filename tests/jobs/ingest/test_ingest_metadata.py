"""Tests of metadata: from paths, from CSV files, corrected later, and kept from telling names."""

import datetime
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from jobs.ingest.metadata import read_metadata
from schemas.errors import SourceError
from schemas.specs.ingest import IngestSpec
from tests.jobs.ingest.world import World
from workers.pseudonyms import Pseudonymizer

PATTERN = r"(?P<split>train|test)/(?P<label>\w+)/(?:(?P<patient>person\d+)_)?.*"


def metadata(csv: str, paths: list[str], **fields: Any) -> Any:
    spec = IngestSpec.model_validate(
        {"source": "x", "metadata": {"file": "m.csv", **fields.get("metadata", {})}}
    )
    return read_metadata(spec, paths, csv.encode(), others=fields.get("others", ()))


def values(result: Any, name: str) -> list[Any]:
    return result.columns[name].to_pylist()  # type: ignore[no-any-return]


def test_groups_of_the_pattern_become_columns(world: World) -> None:
    world.add("train/NORMAL/a.png", "test/PNEUMONIA/person7_b.png", "readme/x.png")
    report = world.ingest(fields={"path": PATTERN}, modality="CR")
    assert report.facts["paths that do not match the pattern"] == 1
    key = Pseudonymizer.from_key_file()
    assert world.present("split", "label", "patient_id", "modality") == {
        "train/NORMAL/a.png": ("train", "NORMAL", None, "CR"),
        "test/PNEUMONIA/person7_b.png": ("test", "PNEUMONIA", key.patient("person7"), "CR"),
        "readme/x.png": (None, None, None, "CR"),
    }


def test_identifiers_stand_nowhere_in_the_lake(world: World) -> None:
    world.add("train/PNEUMONIA/person7_b_person7.png", "PERSON7/person7_c.png")
    csv = world.write("meta.csv", b"path,patient\ntrain/PNEUMONIA/person7_b_person7.png,MRN-0815\n")
    spec: dict[str, Any] = {
        "fields": {"path": r".*?(?P<patient>(?i:person)\d+).*"},
        "metadata": {"file": str(csv)},
    }
    world.ingest(**spec)
    world.write("PERSON7/person7_d.png", b"broken")
    (world.source / "PERSON7/person7_c.png").unlink()
    world.ingest(**spec)
    stored = world.stored_bytes().lower()
    assert b"person7" not in stored
    assert b"mrn-0815" not in stored
    assert b"~id-" in stored
    assert set(world.present("label")) == {"train/PNEUMONIA/person7_b_person7.png"}
    key = Pseudonymizer.from_key_file()
    assert set(world.present("patient_id").values()) == {key.patient("MRN-0815")}


def test_the_csv_wins_over_the_path(world: World) -> None:
    world.add("train/A/person1_x.png", "train/A/person2_y.png")
    csv = world.write("meta.csv", b"path,label\ntrain/A/person1_x.png,B\n")
    report = world.ingest(fields={"path": PATTERN}, metadata={"file": str(csv)})
    assert counts_of(report) == {"input": 2, "done": 2}
    assert world.present("label") == {"train/A/person1_x.png": "B", "train/A/person2_y.png": "A"}
    assert report.facts["files without metadata"] == 1


def counts_of(report: Any) -> dict[str, int]:
    return {name: count for name, count in report.counts.to_dict().items() if count}


def test_a_corrected_csv_updates_rows_without_reading_pixels(world: World) -> None:
    world.add("1.png", "2.png", "3.png")
    csv = world.write("meta.csv", b"path,label,sex,age\n1.png,A,f,30\n2.png,A,M,40\n3.png,A,M,50\n")
    spec = {"metadata": {"file": str(csv)}}
    world.ingest(**spec)
    before = world.present("image_id", "width", "etag")
    assert counts_of(world.ingest(**spec)) == {"input": 3, "up_to_date": 3}
    world.write("meta.csv", b"path,label,sex,age\n1.png,B,f,30\n2.png,A,M,\n3.png,A,M,50\n")
    report = world.ingest(**spec)
    assert counts_of(report) == {"input": 3, "done": 2, "up_to_date": 1}
    assert report.facts["corrected metadata"] == 2
    assert world.read == []
    assert world.present("label", "sex", "age") == {
        "1.png": ("B", "F", 30.0),
        "2.png": ("A", "M", None),
        "3.png": ("A", "M", 50.0),
    }
    assert world.present("image_id", "width", "etag") == before
    assert counts_of(world.ingest(**spec)) == {"input": 3, "up_to_date": 3}


def test_a_corrected_pattern_and_modality_update_rows(world: World) -> None:
    world.add("train/A/person1_x.png")
    world.ingest(fields={"path": PATTERN})
    report = world.ingest(fields={"path": r"train/(?P<label>\w)/.*"}, modality="US")
    assert counts_of(report) == {"input": 1, "done": 1}
    assert world.read == []
    (row,) = world.present("split", "label", "patient_id", "modality").values()
    assert row == (None, "A", None, "US")
    assert len(world.query("SELECT * FROM current_images")) == 1


def test_an_identifier_learnt_later_is_masked_from_then_on(world: World) -> None:
    world.add("ann/1.png")
    world.ingest()
    assert "ann" in world.query("SELECT uri FROM current_images")[0]["uri"]
    world.ingest(fields={"path": r"(?P<patient>\w+)/.*"})
    (row,) = world.query("SELECT uri, patient_id FROM current_images")
    assert "/ann/" not in row["uri"]
    assert row["patient_id"] == Pseudonymizer.from_key_file().patient("ann")
    assert set(world.present("image_id")) == {"ann/1.png"}
    assert counts_of(world.ingest(fields={"path": r"(?P<patient>\w+)/.*"}))["up_to_date"] == 1


def ct(**elements: Any) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, generate_uid()
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.Rows, one.Columns, one.BitsAllocated, one.BitsStored, one.HighBit = 2, 2, 8, 8, 7
    one.PixelRepresentation, one.PixelData = 0, bytes(4)
    one["PixelData"].VR = "OB"
    for name, value in elements.items():
        setattr(one, name, value)
    sink = io.BytesIO()
    one.save_as(sink, enforce_file_format=True)
    return sink.getvalue()


def test_headers_fill_what_metadata_leaves_empty(world: World) -> None:
    header = {"PatientID": "MRN-1", "PatientSex": "M", "PatientAge": "061Y", "Modality": "CT"}
    world.write("MRN-1/a.dcm", ct(**header, StudyDate="20200102", InstitutionName="North"))
    world.write("MRN-2/b.dcm", ct(PatientID="MRN-2", PatientName="Roe^Rick"))
    csv = world.write("meta.csv", b"path,sex,site\nMRN-1/a.dcm,F,South\n")
    world.ingest(metadata={"file": str(csv)}, modality="MR")
    key = Pseudonymizer.from_key_file()
    found = world.present("patient_id", "sex", "age", "modality", "site", "study_date")
    assert found == {
        "MRN-1/a.dcm": (
            key.patient("MRN-1"), "F", 61.0, "CT", "South", datetime.date(2020, 1, 2)
        ),
        "MRN-2/b.dcm": (key.patient("MRN-2"), None, None, "MR", None, None),
    }  # fmt: skip
    assert b"MRN-1" not in world.stored_bytes()

    world.write("meta.csv", b"path,sex,site,label\nMRN-1/a.dcm,,West,x\n")
    report = world.ingest(metadata={"file": str(csv)}, modality="MR")
    assert (counts_of(report), world.read) == ({"input": 2, "done": 1, "up_to_date": 1}, [])
    assert world.present("sex", "age", "site", "label")["MRN-1/a.dcm"] == ("F", 61.0, "West", "x")
    assert b"MRN-1" not in world.stored_bytes()


def test_labels_of_an_archive_stay_unless_metadata_says_otherwise(world: World) -> None:
    sink = io.BytesIO()
    images = np.zeros((2, 3, 4), np.uint8)
    np.savez(sink, train_images=images, train_labels=[0, 1], test_images=images + 1)
    world.write("set.npz", sink.getvalue())
    csv = world.write("meta.csv", b"path,site\nset.npz,North\n")
    world.ingest(metadata={"file": str(csv)})
    world.write("meta.csv", b"path,site\nset.npz,South\n")
    assert counts_of(world.ingest(metadata={"file": str(csv)})) == {"input": 1, "done": 1}
    rows = world.query("SELECT frame, label, split, site FROM current_images ORDER BY frame")
    assert [(one["label"], one["split"], one["site"]) for one in rows] == [
        ("0", "train", "South"), ("1", "train", "South"), (None, "test", "South"),
        (None, "test", "South"),
    ]  # fmt: skip
    world.write("meta.csv", b"path,site,split\nset.npz,South,val\n")
    world.ingest(metadata={"file": str(csv)})
    assert world.read == []
    assert {one["split"] for one in world.query("SELECT split FROM current_images")} == {"val"}
    assert counts_of(world.ingest(metadata={"file": str(csv)})) == {"input": 1, "up_to_date": 1}


@pytest.mark.parametrize(
    ("match", "keys", "found"),
    [
        ("path", ["a/1.png", "./b/2.png"], [1.0, 2.0, None]),
        ("path", ["a\\1.png", " b/2.png "], [1.0, 2.0, None]),
        ("name", ["1.png", "elsewhere/2.png"], [1.0, 2.0, 1.0]),
        ("stem", ["1", "2"], [1.0, 2.0, 1.0]),
    ],
)
def test_keys_may_be_paths_names_or_stems(match: str, keys: list[str], found: list[Any]) -> None:
    csv = f"id,age\n{keys[0]},1\n{keys[1]},2\n"
    result = metadata(
        csv, ["a/1.png", "b/2.png", "c/1.png"], metadata={"key": "id", "match": match}
    )
    assert values(result, "age") == found


@pytest.mark.parametrize(
    ("csv", "column", "found"),
    [
        ('path,"Age, years"\n1.png,41\n2.png,42\n', "Age, years", ["41", "42"]),
        ('path,"Ward; bed; place"\n1.png,3\n2.png,4\n', "Ward; bed; place", ["3", "4"]),
        ('path;"Ward ""A"""\n1.png;3\n2.png;04\n', 'Ward "A"', ["3", "04"]),
        ('path,"Ward\nor bed"\n1.png,3\n2.png,4\n', "Ward\nor bed", ["3", "4"]),
        ("path,Ward\r1.png,7\r2.png,8\r", "Ward", ["7", "8"]),
        ("path\tWard\r\n1.png\t7\r\n2.png\t8\r\n", "Ward", ["7", "8"]),
        ("\ufeff\r\n\npath,Ward\n\n1.png,7\n2.png,8", "Ward", ["7", "8"]),
        ("path,Ward,NA,,\n1.png,7,1,1,1\n2.png,8,1,1,1\n", "Ward", ["7", "8"]),
    ],
)
def test_headers_are_read_as_csv_is_written(csv: str, column: str, found: list[str]) -> None:
    result = metadata(csv, ["1.png", "2.png"], metadata={"columns": {"site": column}})
    assert values(result, "site") == found
    assert result.findings == {}


@pytest.mark.parametrize(
    ("csv", "told"),
    [
        ("path,Ward,Ward\n1.png,7,8\n", "twice.*got `Ward`"),
        (f'path,"{"x" * 200_000}"\n1.png,7\n', "can't be parsed.*got no table"),
        ("", "can't be parsed.*got no table"),
        ("\n\r\n", "can't be parsed.*got no table"),
        ("path,Ward\n1.png,7,secret\n", "got expected 2 columns, got 3"),
        ("path,Ward,more\n1.png,7\n", "got expected 3 columns, got 2"),
    ],
    ids=["twice", "long name", "empty", "empty lines", "long row", "short row"],
)
def test_a_table_that_can_not_be_read_is_refused_without_a_word_of_it(csv: str, told: str) -> None:
    with pytest.raises(SourceError, match=told) as caught:
        metadata(csv, ["1.png"], metadata={"columns": {"site": "Ward"}})
    assert "secret" not in str(caught.value)


def test_repeated_rows_agree_or_are_contradictions() -> None:
    csv = "path,label,site\n1.png,A,x\n1.png,A,y\n1.png,A,x\n2.png,B,z\n9.png,C,z\n"
    result = metadata(csv, ["1.png", "2.png", "3.png"])
    assert values(result, "label") == ["A", "B", None]
    assert values(result, "site") == [None, "z", None]
    assert result.findings == {
        "repeated rows of the metadata file": 2,
        "rows of the metadata file without a file": 1,
        "files without metadata": 1,
        "contradictions in the metadata file": 1,
    }


def test_rows_without_a_file_are_counted_over_the_whole_archive(world: World) -> None:
    csv = "path,label\n1.png,A\n2.png,B\n9.png,C\n"
    label = "rows of the metadata file without a file"
    assert metadata(csv, ["1.png"], others=["2.png"]).findings[label] == 1
    assert label not in metadata(csv, ["1.png"], others=None).findings
    file = world.write("meta.csv", csv.encode())
    world.add("1.png")
    world.write("2.png", b"broken")
    spec = {"metadata": {"file": str(file)}}
    assert world.ingest(**spec).facts[label] == 1
    world.add("3.png")
    assert label not in world.ingest(**spec).facts
    world.write("meta.csv", b"path,label\n1.png,Z\n2.png,B\n3.png,C\n")
    assert label not in world.ingest(**spec).facts


def test_values_are_brought_to_their_field() -> None:
    csv = (
        "path,age,sex,study_date,modality,label\n"
        "1,061Y,female,2020-02-03,us, A \n2,18.5,M,20200203,CT,NA\n3,old,x,soon,,\n4,006M,o,,,\n"
    )
    result = metadata(csv, ["1", "2", "3", "4"])
    assert values(result, "age") == [61.0, 18.5, None, 0.5]
    assert values(result, "sex") == ["F", "M", None, "O"]
    assert values(result, "study_date") == [datetime.date(2020, 2, 3)] * 2 + [None] * 2
    assert values(result, "modality") == ["US", "CT", None, None]
    assert values(result, "label") == ["A", None, None, None]
    assert result.findings == {
        "values that are no age": 1,
        "values that are no sex": 1,
        "values that are no study date": 1,
    }


@pytest.mark.parametrize(
    "csv",
    [
        "path;label\n1;A\n",
        "path\tlabel\n1\tA\n",
        "\ufeffpath,label\r\n1,A\r\n",
        '"path","label"\n1,"A"',
    ],
)
def test_common_kinds_of_csv_are_read(csv: str) -> None:
    assert values(metadata(csv, ["1"]), "label") == ["A"]


def test_columns_may_have_other_names() -> None:
    csv = "Image Index,Finding Labels\n1.png,Mass\n"
    result = metadata(
        csv,
        ["1.png"],
        metadata={"key": "Image Index", "columns": {"label": "Finding Labels"}},
    )
    assert values(result, "label") == ["Mass"]


def test_leading_zeros_and_numbers_stay_text() -> None:
    assert values(metadata("path,patient\n1,007\n", ["1"]), "patient") == ["007"]


@pytest.mark.parametrize(
    ("csv", "fields", "words"),
    [
        ("a,b\n1,2\n", {}, ["no column `path`", "columns of the file: a, b"]),
        ("path\n1\n", {"columns": {"label": "dx"}}, ["no column `dx`"]),
        ("path,dx\n1,2\n", {"columns": {"diagnosis": "dx"}}, ["`diagnosis`", "fields: patient"]),
        ("path,label\n1,A,extra-4711\n", {}, ["can't be parsed", "expected 2 columns, got 3"]),
        ("", {}, ["can't be parsed"]),
    ],
)
def test_files_that_do_not_fit_are_errors(csv: str, fields: Any, words: list[str]) -> None:
    with pytest.raises(SourceError) as error:
        metadata(csv, ["1"], metadata=fields)
    for word in words:
        assert word in str(error.value).replace("Columns of", "columns of")
    assert "4711" not in str(error.value)


def test_a_missing_metadata_file_is_an_error(world: World) -> None:
    world.add("1.png")
    with pytest.raises(SourceError, match="does not exist"):
        world.ingest(metadata={"file": f"{world.source}/none.csv"})


def test_the_metadata_file_is_no_image(world: World) -> None:
    world.add("1.png")
    csv = world.write("sub/meta.csv", b"path,label\n1.png,A\n")
    assert counts_of(world.ingest(metadata={"file": str(csv)})) == {"input": 1, "done": 1}


def test_the_real_chest_set_has_its_duplicates_and_its_leak(
    world: World, shared_data: Path
) -> None:
    report = world.ingest(
        source=str(shared_data / "cxr-kermany"),
        modality="CR",
        fields={"path": PATTERN},
    )
    assert counts_of(report) == {"input": 5840, "done": 5840}
    (row,) = world.query("SELECT count(*) AS n, sum(len(uris) - 1) AS d FROM current_images")
    assert (row["n"], row["d"]) == (5808, 32)
    (leak,) = world.query(
        "SELECT count(*) AS n FROM (SELECT patient_id FROM images WHERE patient_id IS NOT NULL "
        "GROUP BY patient_id HAVING count(DISTINCT split) = 2)"
    )
    assert leak["n"] == 170
    assert world.query("SELECT DISTINCT label FROM images ORDER BY label") == [
        {"label": "NORMAL"}, {"label": "PNEUMONIA"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("folder", "files", "done"),
    [("medmnist", 1, 1), ("us-busi", 719, 719), ("ct-iqothnccd", 398, 397), ("dicom", 274, 175)],
)
def test_counts_reconcile_on_real_folders(
    world: World, shared_data: Path, folder: str, files: int, done: int
) -> None:
    report = world.ingest(source=str(shared_data / folder))
    found = counts_of(report)
    assert (found["input"], found["done"], found.get("rejected", 0)) == (files, done, files - done)
    assert counts_of(world.ingest(source=str(shared_data / folder))) == {
        "input": files, "up_to_date": files
    }  # fmt: skip


def test_labels_that_are_one_are_given_one_name(world: World) -> None:
    world.add("benign/a.png", "malignant/b.png", "normal/c.png", "odd/d.png")
    fields = {"path": r"(?P<label>benign|malignant|normal)/.*"}
    before = world.ingest(fields=fields)
    assert before.facts["new files"] == 4
    labels = {"benign": "nodule", "malignant": "nodule", "cyst": "nodule"}
    report = world.ingest(fields=fields, labels=labels)
    assert report.facts["corrected metadata"] == 2
    assert report.facts["labels to rename that no file has"] == 1
    assert world.read == []
    assert world.present("label") == {
        "benign/a.png": "nodule",
        "malignant/b.png": "nodule",
        "normal/c.png": "normal",
        "odd/d.png": None,
    }
    assert world.ingest(fields=fields, labels=labels).status == "up_to_date"


def test_labels_of_a_metadata_file_are_renamed_too() -> None:
    spec = IngestSpec.model_validate(
        {"source": "x", "metadata": {"file": "m.csv"}, "labels": {"PTX": "ill", "none": "well"}}
    )
    csv = b"path,label\na.png, PTX \nb.png,none\nc.png,COPD\nd.png,\n"
    found = read_metadata(spec, ["a.png", "b.png", "c.png", "d.png"], csv, others=())
    assert found.columns["label"].to_pylist() == ["ill", "well", "COPD", None]


@pytest.mark.parametrize(
    ("labels", "message"),
    [({"a": " "}, "must not be empty"), ({"a": "b", "b": "c"}, "a becomes b, which becomes c")],
)
def test_labels_must_lead_somewhere(labels: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IngestSpec.model_validate({"source": "x", "labels": labels})


def test_equal_numbers_of_two_numberings_are_two_patients(world: World) -> None:
    world.add("PT1_a.png", "PT2_b.png")
    fields = {"path": r"(?P<patient>PT\d)_.*"}
    world.ingest(fields=fields)
    plain = world.present("patient_id")
    world.ingest(fields=fields, patients="north")
    north = world.present("patient_id")
    key = Pseudonymizer.from_key_file()
    assert north == {
        "PT1_a.png": key.patient("PT1", "north"),
        "PT2_b.png": key.patient("PT2", "north"),
    }
    assert len({*plain.values(), *north.values(), key.patient("PT1", "south")}) == 5
    assert world.ingest(fields=fields, patients="north").status == "up_to_date"
    # Files that are read under a numbering name their patients by it, too.
    world.add("PT1_c.png")
    world.ingest(fields=fields, patients="north")
    assert world.present("patient_id")["PT1_c.png"] == north["PT1_a.png"]
