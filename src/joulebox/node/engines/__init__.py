"""Engines, each behind the contract of `node.engine`: `llamacpp` runs models in a process of the node's own, the others
drive servers that stand in `node.driven.KINDS`, and `scripted` plays a known answer, for the rig.

A driver of a server is a module with `WHERE` (its usual address), `LOOKS_FOR`, `OPTIONS` (name and meaning of what may
follow the address) and `open(setup) -> ServedEngine`. Nothing is imported here: the model's own process passes by.
"""
