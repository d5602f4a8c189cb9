"""Trade ids in arrays, and in a dict where they do not ascend: nobody can tell the difference."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.bars.seen import Seen

keys = st.one_of(st.integers(0, 40), st.sampled_from(["a", "b", "#", 2**63, 2**70]))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys),
        st.tuples(st.just("enter"), keys),
        st.tuples(st.sampled_from(["extend", "as arrays"]), st.lists(keys, min_size=1, max_size=5)),
        st.tuples(
            st.sampled_from(["extend", "as arrays"]), st.integers(0, 60).map(lambda n: list(range(n, n + 4)))
        ),
        st.tuples(st.just("forget"), st.integers(0, 12)),
        st.tuples(st.just("save"), st.none()),
    ),
    max_size=60,
)


@given(steps)
def test_it_is_a_dict_that_forgets(steps) -> None:
    seen, model, expired = Seen(), {}, {}
    saved: dict[str | int, int] = {}
    for mark_ns, (step, given_keys) in enumerate(steps):
        if step == "put":
            seen.put(given_keys, mark_ns)
            model[given_keys] = mark_ns
        elif step == "enter":
            since_ns = mark_ns - 5
            known_ns = seen.get(given_keys)
            expected = known_ns is None or known_ns < since_ns
            assert seen.enter(given_keys, mark_ns, since_ns) == expected
            if expected:
                model[given_keys] = mark_ns
        elif step == "extend":
            marks_ns = [mark_ns] * len(given_keys)
            known = set(given_keys) & seen_keys(seen, [*model, *expired])
            expected = not known and len(set(given_keys)) == len(given_keys)
            assert seen.extend(given_keys, marks_ns) == expected
            if expected:
                model.update(zip(given_keys, marks_ns, strict=True))
        elif step == "as arrays":
            numbers = [key for key in given_keys if isinstance(key, int) and key < 2**63]
            marks_ns = [mark_ns] * len(numbers)
            if numbers:
                known = set(numbers) & seen_keys(seen, [*model, *expired])
                rising = [key > max(numbers[:at], default=-1) for at, key in enumerate(numbers)]
                expected = not known and len(set(numbers)) == len(numbers)
                told = () if all(rising) else (np.array(rising),)
                assert seen.extend_numbers(np.array(numbers), np.array(marks_ns), *told) == expected
                if expected:
                    model.update(zip(numbers, marks_ns, strict=True))
        elif step == "forget":
            oldest_ns = mark_ns - given_keys
            seen.forget(oldest_ns, oldest_ns)
            expired |= {key: ns for key, ns in model.items() if ns < oldest_ns}
            model = {key: ns for key, ns in model.items() if ns >= oldest_ns}
        else:
            seen.save()
            saved = dict(model)
        unsaved = list(zip(*seen.unsaved(), strict=True))
        assert {item for item in model.items() if item not in saved.items()} <= set(unsaved)
        for key, ns in model.items():
            assert seen.get(key) == ns
        for key in [*range(-2, 45), "a", "c", 2**70]:
            assert key in model or seen.get(key) in (None, expired.get(key))
        again = Seen()
        for key, ns in unsaved:
            again.put(key, ns)
        for key, ns in dict(unsaved).items():
            assert again.get(key) == ns


def seen_keys(seen: Seen, candidates: list[str | int]) -> set[str | int]:
    return {key for key in candidates if seen.get(key) is not None}


def test_ascending_ids_take_little_room_and_are_forgotten_when_they_have_doubled() -> None:
    seen = Seen()
    assert seen.extend(list(range(1000)), [0] * 1000)
    assert seen.is_full
    seen.forget(0, 0)
    assert (len(seen), seen.is_full) == (1000, False)
    assert seen.extend(list(range(1000, 3000)), [5] * 2000)
    assert seen.is_full
    seen.forget(5, 5)
    assert (len(seen), seen.get(999), seen.get(1000)) == (2000, None, 5)
    assert seen.unsaved() == (list(range(1000, 3000)), [5] * 2000)
