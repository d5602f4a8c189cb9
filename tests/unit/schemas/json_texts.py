"""Strategies of JSON texts: valid messages, and messages with a few fields gone wrong.

Texts, not values, because what matters here is how a number is written: 1, 1.0, 1e0, "1".
"""

import json

from hypothesis import strategies as st

ODD = st.sampled_from(
    [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1",
        "-1",
        "1.0",
        "0.0",
        "1e0",
        "1e400",
        "-1e400",
        "1e-400",
        "0e400",
        "1e" + "9" * 20,
    ]
    + [
        "NaN",
        "Infinity",
        "-Infinity",
        "01",
        "1.",
        ".5",
        "+1",
        "[]",
        "{}",
        "[1]",
        '{"a":1}',
        '""',
        '" "',
        '"a|b"',
    ]
    + [
        '"NaN"',
        '"Infinity"',
        '"1"',
        '"-1"',
        '"1.0"',
        '"1e400"',
        '"1\\n"',
        '" 1"',
        '"+1"',
        '"1_0"',
        '"buy"',
        '"BUY"',
    ]
    + ['"\\ud800"', '"\\u0000"', '"\\u0031"', '"a\\u007fb"', '"é"', '"a:b"', '"ok"', '"Ok"', '"1m"', '"1M"']
    + [str(n) for n in (2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**17 - 1, 10**17)]
    + [str(-(2**63)), str(-(2**63) - 1), "1723161255342000000", "1723161255342000000.0", "1.7e18", "9" * 400]
    + [
        json.dumps(text)
        for text in ("a" * 64, "a" * 65, "a" * 128, "a" * 129, "a" * 257, "1" * 61, "0." + "1" * 37)
    ]
)

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
).map(json.dumps)


def quoted(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return texts.map(json.dumps)


def integers(low: int, high: int) -> st.SearchStrategy[str]:
    return st.integers(low, high).map(str)


def orders(fields: dict[str, str]) -> st.SearchStrategy[bytes]:
    """The object with its fields in any order."""
    return st.permutations(list(fields.items())).map(
        lambda items: ("{" + ",".join(f"{json.dumps(key)}:{value}" for key, value in items) + "}").encode()
    )


def messages(
    required: dict[str, st.SearchStrategy[str]], optional: dict[str, st.SearchStrategy[str]]
) -> st.SearchStrategy[bytes]:
    """Valid messages, and messages of which up to three fields are missing, odd or anything."""
    valid = st.fixed_dictionaries(required, optional=optional)
    names = [*required, *optional, "unknown"]
    changes = st.dictionaries(st.sampled_from(names), st.none() | ODD | ANY_JSON, max_size=3)

    def changed(fields: dict[str, str], change: dict[str, str | None]) -> dict[str, str]:
        merged = {**fields, **change}
        return {key: value for key, value in merged.items() if value is not None}

    return st.builds(changed, valid, st.just({}) | changes).flatmap(orders)
