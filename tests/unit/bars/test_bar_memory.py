"""Forgetting in bulk, and knowing what no state row holds yet."""

from hypothesis import given
from hypothesis import strategies as st

from streams.bars.memory import Memory

steps = st.lists(
    st.one_of(st.integers(0, 9), st.sampled_from(["save", "forget", "forget all"])), min_size=1, max_size=40
)


@given(steps)
def test_what_is_unsaved_is_at_least_what_came_since_the_last_save(steps) -> None:
    memory = Memory()
    saved, live = {}, {}
    for time, step in enumerate(steps):
        if step == "save":
            memory.save()
            saved = dict(live)
        elif isinstance(step, str):
            live = {} if step == "forget all" else {key: at for key, at in live.items() if at > time - 6}
            memory.keep({key: at for key, at in memory.entries.items() if key in live})
        else:
            memory.put(step, time)
            live.pop(step, None)
            live[step] = time
        assert list(memory.entries.items()) == list(live.items())
        unsaved = list(zip(*memory.unsaved(), strict=True))
        assert {item for item in live.items() if item not in saved.items()} <= set(unsaved)
        assert unsaved == list(live.items())[len(live) - len(unsaved) :]


def test_nothing_is_unsaved_after_a_save() -> None:
    memory = Memory()
    memory.put("a", 1)
    memory.save()
    memory.put("b", 2)
    assert memory.unsaved() == (["b"], [2])
    memory.keep(memory.entries)
    assert memory.unsaved() == (["b"], [2])
    memory.save()
    assert memory.unsaved() == ([], [])


def test_it_is_time_to_forget_when_what_was_kept_has_doubled() -> None:
    memory = Memory()
    memory.keep(dict.fromkeys(range(1000), 0))
    assert 2000 <= memory.room < 2100
