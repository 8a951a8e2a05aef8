"""The tower of sentence pairs: a bidirectional LSTM, the maximum over steps, pair features.

Shapes: B pairs, N sentences, T tokens, H hidden units of one direction, D inputs of a layer.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

DIRECTIONS = ("", "_reverse")  # torch's suffixes of the parameters: forward, backward


class BiLSTM(nn.Module):
    """Pair features [u; v; |u - v|; u v] of two sentences (STS-B-DIR, Yang et al. 2021).

    u and v are the maxima over the valid steps of a bidirectional LSTM's outputs. Parameters are
    float32: `embedding` [vocabulary, dim], and under `lstm` those of torch.nn.LSTM by its names,
    shapes and gate order (`weight_ih_l0` [4 H, D]; input, forget, cell, output), drawn as torch
    draws them from U(-1/sqrt(H), 1/sqrt(H)).
    """

    vocabulary: int  # number of words, with padding and unknown
    dim: int  # of the word vectors
    hidden: int  # H
    layers: int = 2
    dropout: float = 0.2  # of the word vectors and of the encoder's outputs, in training
    dtype: jnp.dtype = jnp.float32  # of the activations; the state and the features are float32

    @nn.compact
    def __call__(self, sentences, sentence_mask):
        """Features of pairs: i32[B, 2, T], bool[B, 2, T] -> f32[B, 8 H].

        The mask tells valid tokens, which come first, without gaps; the others change nothing. A
        sentence without any counts as zeros.
        """
        training = self.is_mutable_collection("stats") and not self.is_initializing()
        drop = nn.Dropout(self.dropout, deterministic=not training)
        shape = (self.vocabulary, self.dim)
        embedding = self.param("embedding", nn.initializers.normal(1.0), shape)
        tokens = sentences.shape[-1]
        mask = sentence_mask.reshape(-1, tokens).T[..., None]  # [T, 2 B, 1]
        x = embedding.astype(self.dtype)[sentences.reshape(-1, tokens).T]  # [T, 2 B, dim]
        x = drop(LSTM(self.hidden, self.layers, name="lstm")(drop(x), mask))
        x = x.astype(jnp.float32)  # [T, 2 B, 2 H]
        pooled = jnp.max(jnp.where(mask, x, -jnp.inf), axis=0)  # [2 B, 2 H]
        pooled = jnp.where(mask.any(0), pooled, 0.0).reshape(-1, 2, 2 * self.hidden)
        u, v = pooled[:, 0], pooled[:, 1]
        return jnp.concatenate([u, v, jnp.abs(u - v), u * v], axis=-1)  # [B, 8 H]


class LSTM(nn.Module):
    """Layers of a bidirectional LSTM, forward and backward outputs side by side."""

    hidden: int
    layers: int

    @nn.compact
    def __call__(self, x, mask):
        """x [T, N, D], mask bool[T, N, 1] -> [T, N, 2 H]; 0 behind the valid steps."""
        bound, gates = self.hidden**-0.5, 4 * self.hidden

        def draw(key, shape):
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        for layer in range(self.layers):
            shapes = {"weight_ih": (gates, x.shape[-1]), "weight_hh": (gates, self.hidden)}
            shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
            both = [
                [self.param(f"{name}_l{layer}{end}", draw, shape) for name, shape in shapes.items()]
                for end in DIRECTIONS
            ]
            x = bidirectional(x, mask, *both)
        return x


def bidirectional(x, mask, forward, backward):
    """One bidirectional layer: x [T, N, D], mask bool[T, N, 1] -> [T, N, 2 H].

    (i, f, g, o) = W x_t + b + U h_(t-1) + b';  c_t = s(f) c_(t-1) + s(i) tanh(g);
    h_t = s(o) tanh(c_t), s the sigmoid. Each direction is (W [4 H, D], U [4 H, H], b, b' [4 H]).
    """
    dtype = x.dtype

    def step(states, inputs):
        following = []
        directions = zip(states, inputs, (forward, backward), strict=True)
        for (h, c), (projected, valid), (_, recurrent, _, _) in directions:
            recurrent = recurrent.T.astype(dtype)
            gates = projected + jnp.matmul(h, recurrent, preferred_element_type=jnp.float32)
            i, f, g, o = jnp.split(gates, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            # Zero at padding, so the backward direction, which meets the padding first, starts at
            # the last valid step.
            following.append((jnp.where(valid, h, 0.0).astype(dtype), jnp.where(valid, c, 0.0)))
        return following, [h for h, _ in following]

    # One matrix product before the loop covers the inputs of all steps and both directions.
    weights = jnp.concatenate([forward[0], backward[0]]).astype(dtype)  # [8 H, D]
    bias = jnp.concatenate([forward[2] + forward[3], backward[2] + backward[3]])
    projected = jnp.matmul(x, weights.T, preferred_element_type=jnp.float32) + bias  # [T, N, 8 H]
    ahead, behind = jnp.split(projected, 2, axis=-1)
    zero = jnp.zeros((x.shape[1], forward[1].shape[1]), jnp.float32)
    states = [(zero.astype(dtype), zero)] * 2
    _, (h, reverse) = jax.lax.scan(step, states, [(ahead, mask), (behind[::-1], mask[::-1])])
    return jnp.concatenate([h, reverse[::-1]], axis=-1)
