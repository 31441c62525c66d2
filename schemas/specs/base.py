"""What all job specs share: naming, identity against execution, and the limits of a run."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import to_jsonable_python

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
    process at most for every three shards. More than fit are waited for where the cluster grows."""
    shard_images: int = Field(default=256, ge=1)
    """Inputs of one shard at most."""
    shard_bytes: int = Field(default=256 * 2**20, ge=1)
    """Source bytes of one shard, about, at most."""
    gpus_per_worker: float = Field(default=0, ge=0)
    """GPUs of one process."""
    stall_minutes: float = Field(default=10, gt=0)
    """Minutes after which a shard that stands still is warned of, with its stage."""
    stall_kill_minutes: float | None = Field(default=None, gt=0)
    """Minutes after which the process of such a shard counts as dead, and the shard is tried again;
    at least `stall_minutes`. When not given, it is left alone."""

    @model_validator(mode="after")
    def _is_warned_before_it_is_killed(self) -> Self:
        if self.stall_kill_minutes is not None and self.stall_kill_minutes < self.stall_minutes:
            raise ValueError(
                f"stall_kill_minutes must not be below stall_minutes ({self.stall_minutes:g})"
            )
        return self


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
        """The fields that change the result, as JSON values; the fingerprint is made of them.

        A field that is off (nothing, false or empty) and is so by default is left out: so the next
        release may add one, and what was made without it stays up to date.
        """
        return identity_of(type(self), self.model_dump(mode="json"))


def identity_of(kind: type[JobSpec], stated: Mapping[str, Any]) -> dict[str, Any]:
    """What `JobSpec.identity` is of a spec of this ``kind``, given as the JSON values of a run.

    A run of an earlier release lacks the fields that came later: they had their defaults. Fields
    that a later release no longer has stay, so that the run counts as another.
    """
    found = {name: value for name, value in stated.items() if name not in kind._outside_identity}
    for name, field in kind.model_fields.items():
        if name in kind._outside_identity or field.is_required():
            continue
        default = field.get_default(call_default_factory=False)
        if _is_off(default):
            if name in found and found[name] == to_jsonable_python(default):
                del found[name]
        elif field.default_factory is None:
            known = to_jsonable_python(default)
            found[name] = _completed(known, found[name]) if name in found else known
    return found


def _is_off(default: object) -> bool:
    return default is None or default is False or default in ((), {}, "")


def _completed(default: Any, stated: Any) -> Any:
    """A value with what it lacks of a nested default."""
    if not isinstance(default, dict) or not isinstance(stated, dict):
        return stated
    return {**default, **{name: _completed(default.get(name), one) for name, one in stated.items()}}
