"""What a DICOM header says about the study: patient, age, sex, site, view, date."""

import datetime
import re
from typing import Any

from pydicom.dataset import Dataset

from workers.pixels.decode.types import HeaderFacts

_AGE = re.compile(r"^(\d{1,3})([DWMY])$")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")


def header_facts(dataset: Dataset) -> HeaderFacts:
    """Read the facts of a header (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2, C.7.5.1, C.8.7.1).

    An element that is missing, empty or broken gives None: a file with a bad date is still an
    image.
    """
    studied = next((day for day in (_day(dataset, name) for name in _DATES) if day), None)
    return HeaderFacts(
        modality=_code(dataset, "Modality"),
        patient_id=_text(dataset, "PatientID"),
        identifiers=_identifiers(dataset),
        age=_age(dataset, studied),
        sex=_one_of(dataset, "PatientSex", "MFO"),
        site=_text(dataset, "InstitutionName"),
        view=_code(dataset, "ViewPosition"),
        laterality=_one_of(dataset, "ImageLaterality", "LRBU")
        or _one_of(dataset, "Laterality", "LRBU"),
        study_date=studied.isoformat() if studied else None,
    )


def _identifiers(dataset: Dataset) -> tuple[str, ...]:
    """What points at the patient: ids, accession number, the parts of the name, day of birth.

    Parts of names below three letters stay: they are initials, and syllables of other words.
    """
    whole = [_text(dataset, name) for name in ("PatientID", "AccessionNumber", "PatientBirthDate")]
    others = _value(dataset, "OtherPatientIDs")
    listed = [others] if isinstance(others, str) else list(others or ())
    names = re.split(r"[\^=,\s]+", _text(dataset, "PatientName") or "")
    found = [*whole, *(str(one).strip() for one in listed), *(n for n in names if len(n) >= 3)]
    return tuple(dict.fromkeys(one for one in found if one))


def _value(dataset: Dataset, keyword: str) -> Any:
    try:
        return dataset.get(keyword)
    except Exception:  # noqa: BLE001
        # pydicom converts a value when it is asked for; a broken one says nothing.
        return None


def _text(dataset: Dataset, keyword: str) -> str | None:
    value = _value(dataset, keyword)
    text = str(value).strip(" \0") if value is not None else ""
    return text or None


def _code(dataset: Dataset, keyword: str) -> str | None:
    """A code string: upper case letters, digits, space and underscore (PS3.5 6.2)."""
    text = _text(dataset, keyword)
    return text.upper() if text and re.fullmatch(r"[A-Za-z0-9 _]{1,16}", text) else None


def _one_of(dataset: Dataset, keyword: str, allowed: str) -> str | None:
    code = _code(dataset, keyword)
    return code if code is not None and len(code) == 1 and code in allowed else None


def _day(dataset: Dataset, keyword: str) -> datetime.date | None:
    digits = (_text(dataset, keyword) or "").replace(".", "").replace("-", "")[:8]
    try:
        return datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def _age(dataset: Dataset, studied: datetime.date | None) -> float | None:
    """Years: PatientAge where given, else from the dates of birth and study."""
    match = _AGE.match((_text(dataset, "PatientAge") or "").upper())
    if match:
        return int(match[1]) * _YEARS[match[2]]
    born = _day(dataset, "PatientBirthDate")
    if born is None or studied is None or born > studied:
        return None
    return (studied - born).days / 365.25
