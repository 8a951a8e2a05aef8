"""The tower of sentence pairs: torch's LSTM, padding, the feature of the pair, dropout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxord import trees
from jaxord.models import sentence

B, T, WORDS, DIM, HIDDEN = 3, 6, 11, 5, 4
RNG = np.random.default_rng(0)
LENGTHS = np.array([[6, 3], [1, 1], [2, 5]])
MASK = np.arange(T) < LENGTHS[..., None]
SENTENCES = np.where(MASK, RNG.integers(2, WORDS, (B, 2, T)), 0).astype(np.int32)
TOWER = sentence.BiLSTM(WORDS, DIM, HIDDEN)
evaluate = jax.jit(lambda parameters, *inputs: TOWER.apply({"params": parameters}, *inputs))


@functools.cache
def parameters():
    return TOWER.init(jax.random.key(0), SENTENCES, MASK)["params"]


def test_parameters_are_those_of_torch():
    torch = pytest.importorskip("torch")
    reference = torch.nn.LSTM(DIM, HIDDEN, 2, bidirectional=True)
    expected = {f"lstm/{name}": tuple(value.shape) for name, value in reference.named_parameters()}
    flat = trees.flatten(parameters())
    assert {path: value.shape for path, value in flat.items()} == {
        **expected,
        "embedding": (WORDS, DIM),
    }
    drawn = np.concatenate([np.ravel(value) for path, value in flat.items() if path != "embedding"])
    assert (
        0.47 < np.abs(drawn).max() < 0.5 and abs(drawn.mean()) < 0.03
    )  # U(-1/2, 1/2) for four units


@pytest.mark.parametrize("layers", [1, 2])
def test_lstm_equals_torch(layers):
    """Values and gradients over packed sequences; measured: 9e-8 apart in values, 1e-6 in gradients
    of up to 3.7."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    reference = torch.nn.LSTM(DIM, HIDDEN, layers, bidirectional=True)
    x, weight = (RNG.normal(size=(T, 2 * B, size)).astype(np.float32) for size in (DIM, 2 * HIDDEN))
    lengths = LENGTHS.reshape(-1)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(x), torch.tensor(lengths), enforce_sorted=False
    )
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(reference(packed)[0], total_length=T)
    (expected * torch.tensor(weight)).sum().backward()
    given = {name: value.detach().numpy() for name, value in reference.named_parameters()}

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(parameters):
        found = sentence.LSTM(HIDDEN, layers).apply(
            {"params": parameters}, x, MASK.reshape(-1, T).T[..., None]
        )
        return jnp.sum(found * weight), found

    (_, found), gradients = jax.jit(loss)(given)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=0, atol=3e-7)
    for name, value in reference.named_parameters():
        np.testing.assert_allclose(
            gradients[name], value.grad.numpy(), rtol=1e-5, atol=3e-6, err_msg=name
        )


def test_feature_of_a_pair():
    found = np.asarray(evaluate(parameters(), SENTENCES, MASK))
    assert found.shape == (B, 8 * HIDDEN) and found.dtype == np.float32
    u, v, difference, product = np.split(found, 4, axis=1)
    np.testing.assert_allclose(difference, np.abs(u - v), rtol=0, atol=1e-7)
    np.testing.assert_allclose(product, u * v, rtol=0, atol=1e-7)
    both = MASK.reshape(-1, T).T[..., None]
    x = parameters()["embedding"][SENTENCES.reshape(-1, T).T]
    steps = np.asarray(sentence.LSTM(HIDDEN, 2).apply({"params": parameters()["lstm"]}, x, both))
    longest = np.array(
        [steps[:n, row].max(0) for row, n in enumerate(LENGTHS.reshape(-1))]
    ).reshape(B, 2, -1)
    np.testing.assert_allclose(np.stack([u, v], 1), longest, rtol=0, atol=1e-6)
    swapped = np.asarray(
        evaluate(parameters(), SENTENCES[:, ::-1], MASK[:, ::-1])
    )  # one encoder for both sides
    np.testing.assert_allclose(
        swapped, np.concatenate([v, u, difference, product], 1), rtol=0, atol=1e-6
    )


def test_padding_changes_nothing():
    found = np.asarray(evaluate(parameters(), SENTENCES, MASK))
    other = np.where(MASK, SENTENCES, RNG.integers(0, WORDS, SENTENCES.shape)).astype(np.int32)
    np.testing.assert_array_equal(evaluate(parameters(), other, MASK), found)
    wide = [np.pad(array, ((0, 0), (0, 0), (0, 5))) for array in (SENTENCES, MASK)]
    np.testing.assert_allclose(evaluate(parameters(), *wide), found, rtol=0, atol=1e-6)
    cut = [array[1:2, :, :1] for array in (SENTENCES, MASK)]  # a pair of sentences of one word
    np.testing.assert_allclose(evaluate(parameters(), *cut), found[1:2], rtol=0, atol=1e-6)


def test_a_sentence_without_words_is_finite():
    def total(parameters):
        return jnp.sum(
            TOWER.apply({"params": parameters}, SENTENCES, MASK & (np.arange(B) > 0)[:, None, None])
            ** 2
        )

    value, gradients = jax.jit(jax.value_and_grad(total))(parameters())
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    assert value > 0 and not np.any(gradients["embedding"][0])  # padding is not learned


def test_dropout_in_training_only():
    def features(key):
        rngs = {"dropout": jax.random.key(key)}
        return TOWER.apply({"params": parameters()}, SENTENCES, MASK, rngs=rngs, mutable=["stats"])[
            0
        ]

    train = jax.jit(features)
    assert np.any(train(0) != train(1)) and np.all(train(0) == train(0))
    still = sentence.BiLSTM(WORDS, DIM, HIDDEN, dropout=0.0)
    found = still.apply({"params": parameters()}, SENTENCES, MASK, mutable=["stats"])[0]
    np.testing.assert_allclose(found, evaluate(parameters(), SENTENCES, MASK), rtol=0, atol=1e-6)


def test_half_precision():
    half = sentence.BiLSTM(WORDS, DIM, HIDDEN, dtype=jnp.bfloat16)
    found = jax.jit(lambda p: half.apply({"params": p}, SENTENCES, MASK))(parameters())
    expected = evaluate(parameters(), SENTENCES, MASK)
    assert found.dtype == jnp.float32 and 0 < np.abs(found - expected).max() < 0.02
