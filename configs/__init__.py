"""Experiments: one per file; base.py holds the defaults and explains every key."""
