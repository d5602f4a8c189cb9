"""librdkafka's mock cluster, by its C interface.

The Python client makes one, too (`test.mock.num.brokers`), but gives no way to shorten the three seconds for
which a new group waits for more members. The library is the one inside the client's extension module: its
symbols are found through it, whatever the file is called.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

from confluent_kafka import cimpl

from schemas.errors import BrokerError

_PRODUCER = 0
_TEXT_BYTES = 512

#: A group has one member here, so there is nobody to wait for.
_REBALANCE_DELAY_MS = 1

_FUNCTIONS = {
    "rd_kafka_conf_new": (ctypes.c_void_p, ()),
    "rd_kafka_conf_set": (
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t),
    ),
    "rd_kafka_new": (ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)),
    "rd_kafka_destroy": (None, (ctypes.c_void_p,)),
    "rd_kafka_mock_cluster_new": (ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int)),
    "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, (ctypes.c_void_p,)),
    "rd_kafka_mock_cluster_destroy": (None, (ctypes.c_void_p,)),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, (ctypes.c_void_p, ctypes.c_int32)),
    "rd_kafka_mock_topic_create": (
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
    ),
}


class MockCluster:
    """One broker with these topics. Raises `BrokerError`, and `OSError` or `AttributeError` where the
    library cannot be called like this.
    """

    def __init__(self, topics: Iterable[str], partitions: int) -> None:
        self._library = _library()
        self._client = self._make_client()
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._client, 1)
        if not self._cluster:
            self._library.rd_kafka_destroy(self._client)
            raise BrokerError("the embedded broker did not start: are ports on 127.0.0.1 to be had?")
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, _REBALANCE_DELAY_MS)
        for topic in topics:
            self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1)
        self.address: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def close(self) -> None:
        """Stop it; may be repeated."""
        cluster, self._cluster = self._cluster, None
        if cluster:
            self._library.rd_kafka_mock_cluster_destroy(cluster)
            self._library.rd_kafka_destroy(self._client)

    def _make_client(self) -> int:
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        conf = self._library.rd_kafka_conf_new()
        for name, value in ((b"client.id", b"tidegate-embedded"), (b"log_level", b"0")):
            self._library.rd_kafka_conf_set(conf, name, value, text, _TEXT_BYTES)
        client: int | None = self._library.rd_kafka_new(_PRODUCER, conf, text, _TEXT_BYTES)
        if not client:
            raise BrokerError(f"the embedded broker did not start: {text.value.decode(errors='replace')}")
        return client


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(cimpl.__file__)
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
