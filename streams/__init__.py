"""The machinery: bars, flow control, stores, and what carries them through Kafka."""
