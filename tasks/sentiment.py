"""Sentiment: whether a text speaks well or ill of something. A classification with words of its own."""

from __future__ import annotations

from tasks import classification

FIELDS = {'text': 'text|sentence|review|content', 'label': 'label|sentiment|polarity'}
ASKED = classification.ASKED
LONG = classification.LONG
PROMPT = 'Review: {text}\n\nSentiment:'
HEAD = classification.HEAD
BEST = 'accuracy'
BUILTIN = 'builtin:opinions'

labels = classification.labels
problem = classification.problem
answer = classification.answer
as_booleans = classification.as_booleans
score = classification.score
baseline = classification.baseline
