"""What arrives in an archive of phantoms overnight: new files, and old names with new content."""

from dataclasses import dataclass
from pathlib import Path

from jobs.phantoms import corpus_of
from schemas.specs.phantoms import PhantomsSpec
from workers.phantoms.corpus import Corpus

_OTHER_SEED = 1_000_003


@dataclass(frozen=True)
class Night:
    """Paths of the files that came or changed."""

    new: tuple[Path, ...]
    changed: tuple[Path, ...]


def tomorrow(archive: Path, spec: PhantomsSpec, new: int, changed: int) -> Night:
    """Add the next `new` files of the corpus to it, and draw every so-many-th file anew."""
    corpus = _corpus(spec, spec.seed, spec.count + new)
    added = [_write(archive, corpus, index) for index in range(spec.count, spec.count + new)]
    other = _corpus(spec, _OTHER_SEED, spec.count)
    rewritten = []
    for number in range(changed):
        path = archive / "images" / str(corpus.metadata(number * (spec.count // changed))["path"])
        path.write_bytes(other.render(number).files[0].data)
        rewritten.append(path)
    return Night(tuple(added), tuple(rewritten))


def _write(archive: Path, corpus: Corpus, index: int) -> Path:
    image = corpus.render(index).files[0]
    path = archive / image.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image.data)
    return path


def _corpus(spec: PhantomsSpec, seed: int, count: int) -> Corpus:
    return Corpus(**corpus_of(spec) | {"seed": seed, "count": count})
