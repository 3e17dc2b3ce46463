"""The parts of `offline_bundle.py`."""
