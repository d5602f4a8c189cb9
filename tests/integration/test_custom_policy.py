"""A policy of a user's own, in a worker process: it makes the scale of what a store says of its queue."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.coordinator import Coordinator
from support.kafka import TestTopics
from support.scene import ALL, Scene, held
from support.wait import until
from support.workers import wait_assigned

pytestmark = pytest.mark.kafka

NOBODY = "postgresql://nobody@127.0.0.1:1/none"

MINE = """\
class Gentle:
    def __init__(self, settings):
        self.scale_hard = settings.scale_hard

    def scale(self, feedback, scale, elapsed_s):
        if feedback.level == "hard":
            return self.scale_hard
        return 1 - feedback.queue_size / feedback.capacity / 2
"""


@pytest.mark.end_to_end
@pytest.mark.covers("custom policies")
@pytest.mark.covers("escalation")
def test_a_worker_obeys_a_policy_of_one_s_own(kafka: str, topics: TestTopics, tmp_path: Path) -> None:
    tmp_path.joinpath("mine.py").write_text(MINE)
    scene = Scene(
        kafka, topics, NOBODY, tmp_path, 'policy = "mine:Gentle"', "scale_hard = 0.1", 'follow_lag = "false"'
    )
    with Coordinator(kafka, scene.feedback) as store, scene.worker("bars", "bars") as bars:
        wait_assigned(scene.bars_group, 1, scene.ticks, [bars])
        for level, scale in (("soft", 0.75), ("hard", 0.1), ("ok", 0.75)):
            store.say(dict.fromkeys(ALL, level))  # of a queue that is half full
            until(lambda s=scale: held([bars]) == dict.fromkeys(ALL, s), 20, f"{level} is {scale}")
        assert bars.stop() == 0
