"""Call the command as a user would, without a new process for each line."""

from dataclasses import dataclass

import pytest

from glasshouse.cli import main


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def glasshouse(capsys, monkeypatch, tmp_path):
    """glasshouse("run", "pocket", ...) in an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Result(ended.value.code or 0, printed.out, printed.err)

    return call


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A model folder with untrained weights and a plain byte tokenizer."""
    from glasshouse.model import ModelConfig, initialise, save
    from glasshouse.tokenizer import Tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = Tokenizer.train(["some text"], 265)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=1
    )
    save(initialise(config, 1), tokenizer, folder)
    return folder
