"""What every test may use: its own home folder, one thread, and networks that are loaded once."""

import pytest


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Runs and uploads go to the test's own folder, never to the user's."""
    monkeypatch.setenv("NEURALMINE_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits():
    import neuralmine as nm

    return nm.datasets.load("digits")


@pytest.fixture(scope="session")
def net():
    import neuralmine as nm

    return nm.load("digits")


@pytest.fixture(scope="session")
def word_tokenizer():
    """A tokenizer of fifteen words, for tiny networks that read text."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [
        "<unk>",
        "<s>",
        *["the", "cat", "chases", "mice", "a", "river", "of", "gold", "bank", "money", "and", "dog", "runs"],
    ]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", model_max_length=64
    )
