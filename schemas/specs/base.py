"""What all job specs share: naming, identity against execution, and the limits of a run."""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
"""A name that is safe in paths, in SQL and on a command line."""

Share = Annotated[float, Field(ge=0, le=1)]
"""A share between 0 and 1."""


class Spec(BaseModel):
    """A frozen model that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Execution(Spec):
    """How fast and where a job runs; nothing here changes a result."""

    workers: int | None = Field(default=None, ge=1)
    """Processes at work at once; when not given, all CPUs (or GPUs) of the cluster, but one CPU
    process at most for every three shards."""
    shard_images: int = Field(default=256, ge=1)
    """Inputs of one shard at most."""
    shard_bytes: int = Field(default=256 * 2**20, ge=1)
    """Source bytes of one shard, about, at most."""
    gpus_per_worker: float = Field(default=0, ge=0)
    """GPUs of one process."""


class JobSpec(Spec):
    """A job of a job file. Frozen: constructing one runs nothing."""

    kind: str
    """The kind of job."""
    name: Name = Field(default_factory=lambda given: str(given["kind"]))
    """The job's name in reports and runs; the kind when not given."""
    max_reject_share: Share = 0.05
    """Share of rejects beyond which the command ends with exit code 3."""
    retry_rejects: bool = False
    """Try inputs again that were rejected before."""
    execution: Execution = Execution()
    """How fast and where it runs."""

    _outside_identity: ClassVar[frozenset[str]] = frozenset(
        {"name", "max_reject_share", "retry_rejects", "execution"}
    )

    def identity(self) -> dict[str, Any]:
        """The fields that change the result, as JSON values; the fingerprint is made of them."""
        return self.model_dump(mode="json", exclude=set(self._outside_identity))
