"""Fetched bytes to records, without an object for each."""
