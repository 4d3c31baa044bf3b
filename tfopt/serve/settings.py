"""What a service is set up by; flags of `tfopt serve`, or Python's keywords."""

from __future__ import annotations

import dataclasses
import os

from tfopt.types import check_fields, check_types


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """A service's settings.

    Attributes:
        directory: a bundle, a ladder, or a folder of them.
        name: of the model, where the directory is one; None for the directory's.
        threads: workers, each with an interpreter of every variant; None for as many
            as there are cores.
        deadline_ms: of a request that names none.
        queue: texts that may wait; more are refused.
        cascade: whether a faster variant answers first, and hands on what it is not
            sure of (which, and the threshold, are the ladder's).
        watch_s: seconds between looks for new bundles; None does not look.
        control: whether clients may load and unload models.
        max_body_bytes: of a request.
        max_letters: of a text.
        body_s: seconds in which a request's body must have arrived.
        shadow: a bundle that answers a sample too, to be compared; None for none.
        shadow_fraction: of the texts that the shadow gets, in (0, 1].
        keep_uncertain: file for the texts that the model was least sure of.
        keep_most: texts in it.
        request_log: file to which a line of JSON is added for each text.
        log_texts: whether texts are in that log.
    """

    directory: str
    name: str | None = None
    threads: int | None = None
    deadline_ms: float = 1000.0
    queue: int = 1024
    cascade: bool = False
    watch_s: float | None = None
    control: bool = True
    max_body_bytes: int = 1 << 20
    max_letters: int = 50_000
    body_s: float = 10.0
    shadow: str | None = None
    shadow_fraction: float = 0.01
    keep_uncertain: str | None = None
    keep_most: int = 1000
    request_log: str | None = None
    log_texts: bool = False

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: a value is of another type, or out of its range.
        """
        check_types(self)
        counts = ("queue", "max_body_bytes", "max_letters", "keep_most")
        rules = {name: (getattr(self, name) >= 1, "at least 1") for name in counts}
        rules |= {name: (getattr(self, name) > 0, "above 0")
                  for name in ("deadline_ms", "body_s")}
        check_fields(self, rules | {
            "threads": (self.threads is None or self.threads >= 1, "at least 1"),
            "watch_s": (self.watch_s is None or self.watch_s > 0, "above 0"),
            "shadow_fraction": (0 < self.shadow_fraction <= 1, "in (0, 1]")})

    @property
    def workers(self) -> int:
        """How many worker threads there are."""
        return self.threads or len(os.sched_getaffinity(0))
