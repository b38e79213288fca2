"""Data: what files mean, how rows are packed, and that a batch depends on nothing but seed and step."""

import math
import os

import numpy as np
import pytest
import torch


def corpus_of(toy, folder, documents, *, length=8, vocab=256, **kwargs):
    for i, content in enumerate(documents):
        (folder / f"{i:03d}.txt").write_bytes(bytes(content))
    return toy.data.load([str(folder)], vocab=vocab, length=length, **kwargs)


def test_rows_are_pieces_of_documents(toy, tmp_path):
    """Document i holds the byte i and positions count within it: every row says what must be true of it."""
    corpus = corpus_of(toy, tmp_path, [[i] * (5 + i) for i in range(40)], length=16)
    for step in range(6):
        batch = corpus.batch(step, 4)
        assert batch.tokens.shape == batch.targets.shape == batch.positions.shape == (4, 16)
        starts = batch.positions == 0
        assert starts[:, 0].all()
        changed = batch.tokens[:, 1:] != batch.tokens[:, :-1]
        assert torch.equal(changed, starts[:, 1:])  # a new document exactly where positions start again
        assert torch.equal(batch.positions[:, 1:][~changed], batch.positions[:, :-1][~changed] + 1)
        inside = batch.targets[:, :-1] != toy.data.IGNORED
        assert torch.equal(inside, ~changed)  # nothing is predicted across documents
        assert torch.equal(batch.targets[:, :-1][inside], batch.tokens[:, 1:][inside])


def test_an_epoch_sees_every_window_once(toy, tmp_path):
    """One long document of distinct ids: the windows of an epoch do not overlap and leave less than two windows out."""
    np.save(tmp_path / "ids.npy", np.arange(5000, dtype=np.uint16))
    corpus = toy.data.load([str(tmp_path / "ids.npy")], vocab=65536, length=32)
    windows = corpus._n_windows
    seen = torch.cat([corpus.batch(i, 1).tokens.flatten() for i in range(windows)])
    assert len(seen) == len(seen.unique()) > corpus.train.n_tokens - 2 * 32
    assert corpus.batch(0, 1).positions is None  # one document: no boundary to mark
    again = torch.cat([corpus.batch(i, 1).tokens.flatten() for i in range(windows, 2 * windows)])
    assert len(again) == len(again.unique())
    assert not torch.equal(seen, again)


def test_a_batch_is_a_function_of_seed_and_step(toy, text):
    def load(seed):
        return toy.data.load([str(text)], vocab=256, length=16, seed=seed)

    first, second = load(3), load(3)
    for step in (100, 0, 7):
        assert torch.equal(first.batch(step, 4).tokens, second.batch(step, 4).tokens)
    assert not torch.equal(first.batch(0, 4).tokens, load(4).batch(0, 4).tokens)
    rows = [first.batch(step, 2).tokens for step in (4, 5)]
    assert torch.equal(first.batch(2, 4).tokens, torch.cat(rows))  # whatever the batch size, the rows come in one order


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 65, 1000])
def test_shuffling_is_a_permutation(toy, n):
    assert sorted(toy.data._shuffled(i, n, b"key") for i in range(n)) == list(range(n))


def test_held_out_is_apart(toy, tmp_path):
    corpus = corpus_of(toy, tmp_path, [[i + 1] * 10 for i in range(100)])
    held = {int(token) for batch in corpus.held_out_batches(3, 1000) for token in batch.tokens.flatten()}
    train = {int(token) for i in range(corpus._n_windows) for token in corpus.batch(i, 1).tokens.flatten()}
    assert corpus.held_out.n_tokens == 20
    assert len(held - {0}) == 2  # 0 fills up the last row
    assert not (held - {0}) & train
    counts = [batch.n_targets for batch in corpus.held_out_batches(3, 1000)]
    assert sum(counts) <= 20 - 2


def test_one_document_keeps_its_tail_for_evaluation(toy, tmp_path):
    corpus = corpus_of(toy, tmp_path, [[1 + i % 255 for i in range(1000)]])
    assert (corpus.train.n_tokens, corpus.held_out.n_tokens) == (980, 20)
    batch = next(corpus.held_out_batches(1, 1))
    assert batch.tokens[0, 0] == 1 + 980 % 255


def test_unigram_entropy(toy, tmp_path):
    corpus = corpus_of(toy, tmp_path, [[1, 2, 3, 4] * 50])
    assert corpus.unigram_entropy == pytest.approx(math.log(4), rel=1e-12)


def test_ids(toy, tmp_path):
    ids = np.arange(600, dtype=np.uint32) + 70_000
    ids.tofile(tmp_path / "a.bin")
    np.save(tmp_path / "b.npy", ids)
    for name in ("a.bin", "b.npy"):
        corpus = toy.data.load([str(tmp_path / name)], vocab=100_000, length=8)
        assert corpus.n_tokens == 600
        assert corpus.batch(0, 1).tokens.min() >= 70_000
    small = toy.data.load([str(tmp_path / "a.bin")], vocab=1 << 16, length=8, ids="uint16")
    assert small.n_tokens == 1200


def test_directories_leave_out_what_is_no_text(toy, tmp_path):
    (tmp_path / "a.py").write_text("print()\n" * 20)
    (tmp_path / "b.so").write_bytes(b"\x7fELF\0\0" * 20)
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_bytes(b"abc")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.py").write_text("pass\n" * 20)
    corpus = toy.data.load([str(tmp_path), str(tmp_path / "a.py")], vocab=256, length=8)
    assert (corpus.n_files, corpus.n_tokens, corpus.skipped) == (2, 160 + 100, 1)
    by_glob = toy.data.load([str(tmp_path / "**" / "*.py")], vocab=256, length=8)
    assert by_glob.fingerprint() == corpus.fingerprint()


def test_errors(toy, tmp_path):
    def message(*paths, **kwargs):
        with pytest.raises(toy.data.DataError) as caught:
            toy.data.load([str(tmp_path / p) for p in paths], **{"vocab": 256, "length": 8} | kwargs).batch(0, 4)
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("a" * 400)
    (tmp_path / "short.txt").write_text("a" * 12)
    (tmp_path / "odd.bin").write_bytes(b"abc")
    (tmp_path / "bad.npy").write_bytes(b"abc")
    np.save(tmp_path / "float.npy", np.zeros(100))
    np.save(tmp_path / "big.npy", np.full(400, 300, dtype=np.uint16))
    assert "no file, directory or glob matches" in message("nowhere*")
    assert message("empty").startswith("no data")
    assert "holds the id 97; the model's ids end at 63" in message("a.txt", vocab=64)
    assert "holds the id 300; the model's ids end at 255" in message("big.npy")
    assert "too little data: 11 tokens to train on" in message("short.txt")
    assert "no whole number of uint16 ids" in message("odd.bin")
    assert "is not a .npy file" in message("bad.npy")
    assert "token ids are a 1-D array of uint16 or uint32, this is 1-D float64" in message("float.npy")
    assert "give one kind" in message("a.txt", "big.npy")


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_left_out_of_a_directory(toy, tmp_path):
    (tmp_path / "a.txt").write_text("a" * 400)
    (tmp_path / "b.txt").write_text("b" * 400)
    (tmp_path / "b.txt").chmod(0)
    corpus = toy.data.load([str(tmp_path)], vocab=256, length=8)
    assert (corpus.n_files, corpus.skipped) == (1, 1)
