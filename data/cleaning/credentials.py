"""Keys and tokens in text, by the forms that their issuers document, and values assigned to such names."""

from __future__ import annotations

import math
import re
from collections import Counter

# Each begins with a word that a plain search finds: text without any of them is not looked at further.
FORMS = {
    'AKIA': r'AKIA[0-9A-Z]{16}',  # Amazon Web Services, access key id
    'ASIA': r'ASIA[0-9A-Z]{16}',  # the same, temporary
    'gh': r'gh[pousr]_[0-9A-Za-z]{36}',  # GitHub
    'github_pat_': r'github_pat_[0-9A-Za-z]{22}_[0-9A-Za-z]{59}',
    'glpat-': r'glpat-[0-9A-Za-z_-]{20}',  # GitLab
    'AIza': r'AIza[0-9A-Za-z_-]{35}',  # Google
    'ya29.': r'ya29\.[0-9A-Za-z_-]{30,}',
    'xox': r'xox[abprs]-[0-9A-Za-z-]{20,}',  # Slack
    'sk_live_': r'sk_live_[0-9A-Za-z]{24,}',  # Stripe
    'rk_live_': r'rk_live_[0-9A-Za-z]{24,}',
    'sk-': r'sk-(?:proj-|ant-[a-z0-9]+-)?[0-9A-Za-z_-]{32,}',  # OpenAI, Anthropic
    'hf_': r'hf_[0-9A-Za-z]{34}',  # Hugging Face
    'npm_': r'npm_[0-9A-Za-z]{36}',
    'pypi-': r'pypi-AgEIcHlwaS5vcmc[0-9A-Za-z_-]{50,}',
    'eyJ': r'eyJ[0-9A-Za-z_-]{8,}\.eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{16,}',  # JSON web token, RFC 7519
}
TOKEN = re.compile(rf'(?<![0-9A-Za-z_-])(?:{"|".join(FORMS.values())})(?![0-9A-Za-z_-])')
STARTS = re.compile('|'.join(map(re.escape, FORMS)))
PRIVATE_KEY = re.compile(
    r'-----BEGIN (?P<kind>(?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?)-----.*?-----END (?P=kind)-----', re.DOTALL
)
ASSIGNED = re.compile(
    r'(?:api[_-]?key|secret(?:[_-]?key)?|access[_-]?token|auth[_-]?token|password|passwd|密码|口令|密钥)'
    r'["\']?\s{0,2}(?:[:=：]|=>)\s{0,2}(?P<quote>["\'])(?P<value>[^\s"\']{12,})(?P=quote)',
    re.IGNORECASE,
)
NAMES = re.compile(r'key|secret|token|passw|密码|口令|密钥', re.IGNORECASE)
LEAST_BITS = 3.0  # entropy of a value's characters; words and 'xxxxxxxx' have less


def replace_credentials(text: str) -> str:
    """Replaces private keys, documented tokens, and quoted random values assigned to a password or key."""
    if '-----BEGIN ' in text:
        text = PRIVATE_KEY.sub('[SECRET]', text)
    if STARTS.search(text):
        text = TOKEN.sub('[SECRET]', text)
    return ASSIGNED.sub(_assigned, text) if NAMES.search(text) else text


def _assigned(match: re.Match) -> str:
    value = match['value']
    has_both = re.search('[0-9]', value) and re.search('[A-Za-z]', value)
    if not has_both or entropy(value) < LEAST_BITS:
        return match[0]
    start, end = match.span('value')
    return match[0][: start - match.start()] + '[SECRET]' + match[0][end - match.start() :]


def entropy(value: str) -> float:
    """Returns the Shannon entropy of a text's characters, in bits each."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())
