"""What a job file says of the night as a whole: when it closes, and who is told what."""

from string import Template
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, StringConstraints

from schemas.specs.base import Spec

Event = Literal["failed", "held", "late"]
"""A job failed; the gate held a run; the night is still at work when it closes."""
EVENTS: tuple[Event, ...] = get_args(Event)

MESSAGE_FIELDS = (
    "event", "night", "lake", "job", "kind", "run", "model", "counts", "what", "remedy",
)  # fmt: skip
"""What a template may name."""


def _checked_zone(zone: str) -> str:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is no time zone; name it like UTC or Europe/Berlin") from None
    return zone


def _checked_template(text: str) -> str:
    template = Template(text)
    unknown = sorted(set(template.get_identifiers()) - set(MESSAGE_FIELDS))
    if unknown or not template.is_valid():
        fields = ", ".join(f"${name}" for name in MESSAGE_FIELDS)
        wrong = ", ".join(f"${name}" for name in unknown) or "a $ without a name ($$ is a dollar)"
        raise ValueError(f"names {wrong}; a message may name {fields}")
    return text


Zone = Annotated[str, AfterValidator(_checked_zone)]
"""A time zone of the IANA database."""
TimeOfDay = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
"""A time of day, hours and minutes: 05:30."""
MessageText = Annotated[str, AfterValidator(_checked_template)]
"""Text with $fields."""


class NightSpec(Spec):
    """When a night begins to be over."""

    zone: Zone = "UTC"
    """The time zone of `closes` and of a night's date."""
    closes: TimeOfDay | None = None
    """The time of day at which a night that is still at work is late; no slice begins after it."""


class Message(Spec):
    """A message's text; `$field` stands for a fact about what happened."""

    title: MessageText = "Rayward, night of $night: $job $event"
    """Its subject."""
    body: MessageText = "$what\n$counts\n$remedy\nLake: $lake"
    """What follows; lines that come out empty are left out."""


class Messages(Spec):
    """Texts of single events, in place of the one of all."""

    failed: Message | None = None
    """Of a job that failed."""
    held: Message | None = None
    """Of a run that the gate holds."""
    late: Message | None = None
    """Of a night that is late."""


class NotifySpec(Spec):
    """Who is told when something needs a person; sent through Apprise."""

    urls_from: Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]*$")] = (
        "RAYWARD_NOTIFY_URLS"
    )
    """The environment variable that holds Apprise URLs, with blanks or line ends in between. They
    hold secrets, so they never stand in a job file."""
    on: tuple[Event, ...] = EVENTS
    """What is told."""
    message: Message = Message()
    """The text of all messages."""
    messages: Messages = Messages()
    """Texts of single events, in place of `message`."""

    def message_of(self, event: Event) -> Message:
        """The text of an event."""
        of_event = {
            "failed": self.messages.failed,
            "held": self.messages.held,
            "late": self.messages.late,
        }
        return of_event[event] or self.message
