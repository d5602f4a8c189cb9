"""Schema registries: the ecosystem's own (`core`), and those that speak Confluent's API (`serdes`)."""
