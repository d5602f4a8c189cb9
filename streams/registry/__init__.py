"""Schema registries: the ecosystem's own (`core`), through core-registry-client."""
