"""Fuzzing of every parser of bytes and text that come from outside. `make fuzz` lets atheris look for new paths."""
