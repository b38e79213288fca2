"""Files that hold a shared block more than once: the same in every place, or no model of ours."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.models.packages import Workshop

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

from .cases import pinned_config  # noqa: E402 (transformers is there)
from .pair import Pair  # noqa: E402

Tensors = dict[str, torch.Tensor]


def rewritten(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    """The files of a directory as one, changed."""
    tensors: Tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= safetensors.load_file(path)
        path.unlink()
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    safetensors.save_file(change(tensors), folder / "model.safetensors")


def blocks(tensors: Tensors, layer: int) -> Tensors:
    """The tensors of the block that a file has under a layer."""
    return {name: tensor for name, tensor in tensors.items() if f"layers.{layer}.shared_" in name}


def moved(tensors: Tensors, source: int, target: int) -> Tensors:
    """Copies of a layer's block under another layer."""
    found = blocks(tensors, source).items()
    return {name.replace(f"layers.{source}.", f"layers.{target}."): tensor.clone() for name, tensor in found}


@pytest.fixture
def pair(workshop: Workshop, tmp_path: Path) -> Pair:
    """A Zamba2 of two blocks, tied: layers 1, 2 and 4 use blocks 0, 1 and 0."""
    return Pair.make(pinned_config("zamba2", 0), workshop, tmp_path, steady=False)


def test_a_file_has_each_block_once(pair: Pair) -> None:
    names = [name for path in (pair.folder / "theirs").glob("*.safetensors") for name in safetensors.load_file(path)]
    homes = {int(match[1]) for name in names if (match := re.search(r"layers\.(\d+)\.shared_transformer", name))}
    assert homes == {1, 2}


def test_a_block_that_is_there_again_has_to_be_the_same(pair: Pair) -> None:
    theirs = pair.folder / "theirs"
    expected = {name: tensor.clone() for name, tensor in pair.loaded(theirs).state_dict().items()}
    rewritten(theirs, lambda tensors: tensors | moved(tensors, 1, 4))
    found = pair.loaded(theirs).state_dict()
    assert [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)] == []
    rewritten(theirs, lambda tensors: tensors | {n: t + 1 for n, t in moved(tensors, 1, 4).items() if "o_proj" in n})
    with pytest.raises(ValueError, match=r"value of their own: model\.layers\.4\.\w+\.self_attn\.o_proj"):
        pair.loaded(theirs)


def test_a_block_that_is_missing_or_of_another_layer_is_named(pair: Pair) -> None:
    theirs = pair.folder / "theirs"
    rewritten(theirs, lambda tensors: {n: t for n, t in tensors.items() if n not in blocks(tensors, 2)})
    with pytest.raises(ValueError, match=r"missing: model\.layers\.2\.shared_transformer"):
        pair.loaded(theirs)
    rewritten(theirs, lambda tensors: tensors | moved(tensors, 1, 3))
    with pytest.raises(ValueError, match=r"unexpected: model\.layers\.3\.shared_transformer"):
        pair.loaded(theirs)


def test_untied_every_use_has_its_block(workshop: Workshop, tmp_path: Path) -> None:
    """transformers 5.23 shares nothing in a model that ties no embedding: what differs there is no Zamba2."""
    pair = Pair.make(pinned_config("zamba2", 1), workshop, tmp_path, steady=False)
    pair.loaded(tmp_path / "theirs")
    rewritten(tmp_path / "theirs", lambda tensors: {n: t + ("layers.4.shared" in n) for n, t in tensors.items()})
    with pytest.raises(ValueError, match=r"value of their own: model\.layers\.4\.shared_transformer"):
        pair.loaded(tmp_path / "theirs")
