"""The bar engine: bytes and offsets in, bars out. Pure and deterministic; time is passed in."""
