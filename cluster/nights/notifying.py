"""Telling people, through Apprise, what happened in a night; never at the night's expense.

What leaves the house names jobs, models, runs, counts, figures and, with its credentials masked,
the lake's root: no path of an image, no identifier of a patient, and of an error only what kind it
is.
"""

import os
from collections.abc import Callable, Mapping
from datetime import date
from string import Template
from typing import Protocol

import apprise

from schemas.masking import masked
from schemas.specs.night import MESSAGE_FIELDS, Event, NotifySpec

Send = Callable[[str, str], bool]
"""Sends a title and a body; says whether everybody got it."""
Warn = Callable[[str], object]
"""Told, in words, why somebody was not."""


class Notifier(Protocol):
    """Tells somebody about an event; never raises."""

    def tell(self, event: Event, facts: Mapping[str, str]) -> None:
        """Tell what happened; ``facts`` are fields of a message by name."""


class Silence:
    """Tells nobody."""

    def tell(self, event: Event, facts: Mapping[str, str]) -> None:
        """Do nothing."""


class Messenger:
    """Fills the messages of a job file and sends them; what fails becomes a warning."""

    def __init__(self, spec: NotifySpec, send: Send, warn: Warn, common: Mapping[str, str]) -> None:
        """``common`` are fields that every message has: the night and the lake."""
        self._spec, self._send, self._warn, self._common = spec, send, warn, common

    def tell(self, event: Event, facts: Mapping[str, str]) -> None:
        """Send the event's message, if the job file wants it told."""
        if event not in self._spec.on:
            return
        message = self._spec.message_of(event)
        fields = dict.fromkeys(MESSAGE_FIELDS, "")
        fields.update(self._common, **facts, event=event)
        title = Template(message.title).substitute(fields)
        lines = Template(message.body).substitute(fields).splitlines()
        body = "\n".join(line for line in lines if line.strip())
        try:
            sent = self._send(masked(title), masked(body))
        except Exception as error:  # noqa: BLE001 whatever a messenger does, the night goes on
            self._warn(f"nobody was told ({event}): {type(error).__name__}")
            return
        if not sent:
            self._warn(f"not everybody was told ({event}): a service of Apprise refused")


def messenger(spec: NotifySpec, *, night: date, lake: str, warn: Warn) -> Notifier:
    """What tells those whom a job file names; nobody, with a warning, where it has no URL."""
    send = apprise_sender(spec.urls_from, warn)
    if send is None:
        return Silence()
    return Messenger(spec, send, warn, {"night": night.isoformat(), "lake": lake})


def apprise_sender(urls_from: str, warn: Warn, env: Mapping[str, str] = os.environ) -> Send | None:
    """What sends to the Apprise URLs of an environment variable; none where it has no usable one.

    The URLs hold secrets, so no warning quotes one.
    """
    urls = env.get(urls_from, "").split()
    if not urls:
        warn(f"nobody is told: {urls_from} holds no Apprise URL")
        return None
    service = apprise.Apprise(asset=apprise.AppriseAsset(secure_logging=True))
    for number, url in enumerate(urls, 1):
        if not service.add(url):
            warn(f"{urls_from}: URL {number} of {len(urls)} is none that Apprise knows")
    if not len(service):
        return None
    return lambda title, body: bool(service.notify(title=title, body=body))
