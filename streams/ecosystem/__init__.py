"""The peers of market-data-core: its event bus, its contracts. Each module needs an extra."""
