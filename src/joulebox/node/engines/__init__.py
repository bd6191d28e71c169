"""Engines, each behind the contract of `node.engine`: `llamacpp` runs real models, `scripted` plays a known answer."""
