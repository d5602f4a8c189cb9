"""The codecs by feed: `get_codec("binance", venue="BINANCE").decode(record.value)`."""

from schemas.codecs.base import Codec
from schemas.codecs.binance import BinanceCodec
from schemas.codecs.coinbase import CoinbaseCodec
from schemas.codecs.cryptofeed import CryptofeedCodec
from schemas.codecs.csv import CsvCodec
from schemas.codecs.kraken import KrakenCodec
from schemas.codecs.tidegate import TidegateCodec
from schemas.errors import ConfigError

__all__ = ["FEEDS", "Codec", "get_codec"]

_CODECS: dict[str, type[Codec]] = {
    "tidegate": TidegateCodec,
    "jsonl": TidegateCodec,
    "csv": CsvCodec,
    "binance": BinanceCodec,
    "cryptofeed": CryptofeedCodec,
    "kraken": KrakenCodec,
    "coinbase": CoinbaseCodec,
}

FEEDS: tuple[str, ...] = tuple(_CODECS)


def get_codec(feed: str, venue: str = "") -> Codec:
    """The codec of a feed; `venue` is the configured one. Raises ConfigError for a feed that is not known."""
    try:
        return _CODECS[feed](venue)
    except KeyError:
        raise ConfigError(f"unknown feed {feed!r}", hint=f"known feeds: {', '.join(FEEDS)}") from None
