"""Trade ids in arrays, and in a dict where they do not ascend: nobody can tell the difference."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from streams.bars.seen import Seen, Unsaved

keys = st.one_of(st.integers(0, 40), st.sampled_from(["a", "b", "#", 2**63, 2**70]))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys),
        st.tuples(st.just("enter"), keys),
        st.tuples(st.sampled_from(["extend any", "extend"]), st.lists(keys, min_size=1, max_size=5)),
        st.tuples(
            st.sampled_from(["extend any", "extend"]), st.integers(0, 60).map(lambda n: list(range(n, n + 4)))
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
        elif step == "extend any":
            marks_ns = [mark_ns] * len(given_keys)
            known = set(given_keys) & seen_keys(seen, [*model, *expired])
            expected = not known and len(set(given_keys)) == len(given_keys)
            assert seen.extend_any(given_keys, marks_ns) == expected
            if expected:
                model.update(zip(given_keys, marks_ns, strict=True))
        elif step == "extend":
            numbers = [key for key in given_keys if isinstance(key, int) and key < 2**63]
            if numbers:
                known = set(numbers) & seen_keys(seen, [*model, *expired])
                expected = not known and len(set(numbers)) == len(numbers)
                assert extend(seen, numbers, mark_ns) == expected
                if expected:
                    model.update(dict.fromkeys(numbers, mark_ns))
        elif step == "forget":
            oldest_ns = mark_ns - given_keys
            seen.forget(oldest_ns, oldest_ns)
            expired |= {key: ns for key, ns in model.items() if ns < oldest_ns}
            model = {key: ns for key, ns in model.items() if ns >= oldest_ns}
        else:
            seen.save()
            saved = dict(model)
        unsaved = pairs(seen.unsaved())
        assert {item for item in model.items() if item not in saved.items()} <= set(unsaved)
        assert seen.top >= max((key for key in model if isinstance(key, int) and key < 2**63), default=-1)
        for key, ns in model.items():
            assert seen.get(key) == ns
        for key in [*range(-2, 45), "a", "c", 2**70]:
            assert key in model or seen.get(key) in (None, expired.get(key))
        again = Seen()
        for key, ns in unsaved:
            again.put(key, ns)
        for key, ns in dict(unsaved).items():
            assert again.get(key) == ns


def test_no_id_is_above_the_top_when_those_that_ascended_are_forgotten() -> None:
    for insert in (lambda seen: extend(seen, [50], 9), lambda seen: seen.put(50, 9)):
        seen = Seen()
        seen.put(100, 3)
        insert(seen)
        seen.forget(6, 6)
        assert (seen.get(100), seen.get(50)) == (None, 9)
        assert seen.top >= 50


def extend(seen: Seen, numbers: list[int], mark_ns: int) -> bool:
    """As the sheet does: those that rise first, some of the marks below the watermark that counts."""
    up = [key for at, key in enumerate(numbers) if key > max(numbers[:at], default=-1)]
    down = [key for at, key in enumerate(numbers) if key <= max(numbers[:at], default=-1)]
    marks_ns = [*sorted(min(mark_ns, at) for at, _ in enumerate(up)), *(mark_ns for _ in down)]
    pairs = [number for pair in zip(up + down, marks_ns, strict=True) for number in pair]
    return seen.extend(memoryview(array("q", pairs)), len(up), mark_ns)


def pairs(unsaved: Unsaved) -> list[tuple[str | int, int]]:
    return [
        *zip(unsaved.pairs[::2], unsaved.pairs[1::2], strict=True),
        *zip(unsaved.others, unsaved.others_ns, strict=True),
    ]


def seen_keys(seen: Seen, candidates: list[str | int]) -> set[str | int]:
    return {key for key in candidates if seen.get(key) is not None}


def test_ascending_ids_take_little_room_and_are_forgotten_when_they_have_doubled() -> None:
    seen = Seen()
    assert extend(seen, list(range(1000)), 0)
    assert seen.is_full
    seen.forget(0, 0)
    assert (len(seen), seen.is_full) == (1000, False)
    assert extend(seen, list(range(1000, 3000)), 5)
    assert seen.is_full
    seen.forget(5, 5)
    assert (len(seen), seen.get(999), seen.get(1000)) == (2000, None, 5)
    assert pairs(seen.unsaved()) == [(n, 5) for n in range(1000, 3000)]
