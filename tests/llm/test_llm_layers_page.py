"""docs/layers.md runs as it stands, with any model in the place of runs/pocket."""

import re
from pathlib import Path

from glasshouse.llm import Request, blocking
from glasshouse.model import save
from glasshouse.tokenizer import Tokenizer

PAGE = Path(__file__).parents[2] / "docs" / "layers.md"


def test_the_examples_run(random_model, tmp_path, capsys):
    tokenizer = Tokenizer.train([], 265)
    save(random_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=256), tokenizer, tmp_path)
    names = {}
    first, second = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(first.replace("runs/pocket", str(tmp_path)), names)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if " done; " in line]) == 20
    exec(second.replace("runs/pocket", str(tmp_path)), names)
    request = Request.parse({"messages": [{"role": "user", "content": "Hi"}], "max_new_tokens": 4})
    assert blocking.complete(names["llm"], request).usage.new_tokens > 0
    blocking.wait(names["llm"].close())
