"""Backpressure: pressure of a queue → policy → valve."""
