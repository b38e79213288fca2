"""Greedy generation: our cache and transformers' say the same tokens."""

from pathlib import Path

import pytest

from tests.models.packages import Workshop

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.hub.configs import random_config  # noqa: E402 (transformers is there)

from .cases import PINNED  # noqa: E402
from .pair import Pair  # noqa: E402

N_TOKENS = 24


@pytest.mark.parametrize("name", PINNED)
def test_greedy(name: str, workshop: Workshop, tmp_path: Path) -> None:
    config = random_config(name, 0, **PINNED[name][0] | {"tie_word_embeddings": False, "vocab_size": 40})
    pair = Pair.make(config, workshop, tmp_path, noise=0.3, embedding=0.0, steady=False)
    prompt = pair.tokens[:, :7]
    generate = pair.package.module("generate")
    ours = generate.generate(pair.ours, prompt, N_TOKENS, how=generate.Sampling(temperature=0))
    theirs = pair.theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=N_TOKENS, do_sample=False, pad_token_id=0
    )
    assert torch.equal(ours, theirs)
    assert len(ours[:, 7:].unique()) > 4, "a model that repeats itself would prove little"
