import pytest

from glasshouse.tokenizer import Tokenizer

CORPUS = [
    "The cat sat on the mat, and the dog sat on the log. They're friends; that's 1,234 days now!\n\n",
    "Der Bär läuft über die Brücke, über die Straße, über den Fluß. Čeština, ελληνικά, русский, 中文。\n",
    "def f(x):\n    return x + 1\n\n\ndef g(x):\n\treturn f(f(x))\r\n" * 3,
    "aaaa aaaaa aaaaaaa aaab abab ababab bababab 🦊🦊 👩‍👩‍👧 e\u0301 é \u2028 \u00a0 x\n" * 2,
] * 5


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """Text of several scripts, with code, numbers and repetitive letters."""
    return CORPUS


@pytest.fixture(scope="session")
def trained() -> Tokenizer:
    """A small tokenizer over text of several scripts."""
    return Tokenizer.train(CORPUS, 400)
