"""transformers' models are ours: the same logits and gradients from its files, and from ours the same model again."""

import json
from pathlib import Path

import pytest

from archc import hub
from tests.models.packages import Workshop

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from .cases import CASES, HEAVY, any_config, pinned_config  # noqa: E402 (transformers is there)
from .pair import Pair, difference, run  # noqa: E402

# Relative to the largest number of a tensor: sums of up to a hundred products in another order, through as many as
# twelve layers. Measured over the heavy cases: 1e-6 in logits and 9.3e-6 in gradients; 4e-15 and 1.7e-13.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


@pytest.mark.parametrize(("name", "i"), CASES)
def test_family(name: str, i: int, workshop: Workshop, tmp_path: Path) -> None:
    pair = Pair.make(pinned_config(name, i), workshop, tmp_path)
    assert pair.n_files > 1
    compare(pair)


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "i"), HEAVY)
def test_random_family(name: str, i: int, workshop: Workshop, tmp_path: Path) -> None:
    compare(Pair.make(any_config(name, i), workshop, tmp_path))


def compare(pair: Pair) -> None:
    for dtype, tolerance in TOLERANCE.items():
        assert difference(*pair.logits(dtype)) <= tolerance
        ours, theirs = pair.gradients(dtype)
        assert ours.keys() == theirs.keys()
        differences = {name: difference(ours[name], theirs[name]) for name in ours}
        assert {name: d for name, d in differences.items() if d > tolerance} == {}
    with torch.no_grad():
        expected = run(pair.theirs, pair.tokens)
        weights = {name: tensor.clone() for name, tensor in pair.theirs.state_dict().items()}
        again = pair.exported()
        found = again.state_dict()
        assert [name for name in weights if not torch.equal(found[name], weights[name])] == []
        assert found.keys() == weights.keys()
        assert torch.equal(run(again, pair.tokens), expected)


# How files of transformers 4 say what the layers are.
OLD_WORDS = {"linear_attention": "mamba", "full_attention": "attention"}
OLD_LETTERS = {"linear_attention": "M", "full_attention": "*", "mlp": "-"}


@pytest.mark.parametrize("name", ["zamba", "zamba2", "nemotron_h"])
def test_layers_in_old_words(name: str, workshop: Workshop, tmp_path: Path) -> None:
    """A file that lists its layers as its authors did is the same model, and its weights load."""
    pair = Pair.make(pinned_config(name, 0), workshop, tmp_path)
    path = tmp_path / "theirs" / "config.json"
    config = json.loads(path.read_text())
    layers = config.pop("layers_block_type")
    old = {"layers_block_type": [OLD_WORDS.get(word, word) for word in layers]}
    if name == "nemotron_h":
        letters = "".join(OLD_LETTERS[word] for word in layers)
        path.write_text(json.dumps(config | {"hybrid_override_pattern": letters, "num_hidden_layers": len(layers)}))
        assert hub.import_config(path.read_text(), name) == hub.spec_text(config | {"layers_block_type": layers}, name)
    path.write_text(json.dumps(config | old))
    assert hub.import_config(path.read_text(), name) == hub.spec_text(config | {"layers_block_type": layers}, name)
    assert difference(*pair.logits(torch.float32)) <= TOLERANCE[torch.float32]
