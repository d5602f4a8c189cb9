"""Feedback in, pauses and resumes out.

Takes feedback about the partitions this worker owns and hands it to the `Throttle`, which sets the
valve that the transport asks at each fetch, and publishes what it decided on the rate topic. It is
in the group of the bars agent, because the worker that consumes tick partition p must be the one
that reads feedback p. Feedback itself is never paused.
"""

from __future__ import annotations

from streams.app import App, batch_agent
from streams.flow.throttle import Throttle


def rate_controller_agent(app: App, feedback_topic: str, throttle: Throttle) -> None:
    """Register the agent on `app`."""
    batch_agent(app, feedback_topic, name="rate-controller", handle=throttle.take)
