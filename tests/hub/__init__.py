"""Tests of the files that are emitted as they stand."""
