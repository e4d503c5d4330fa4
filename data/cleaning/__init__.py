"""Cleaning: small pure steps from text to text, or to the reason why a document is dropped."""
