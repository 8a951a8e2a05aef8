"""The tower of sentence pairs: a bidirectional LSTM, the maximum over its steps, and the feature of
the pair.

Shapes: B pairs, N sentences, T tokens, H hidden units of one direction, D inputs of a layer.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

DIRECTIONS = ("", "_reverse")  # torch's suffixes of the parameters: forward, backward


class BiLSTM(nn.Module):
    """Pair features [u; v; |u - v|; u v] of the two sentences, both through one encoder (STS-B-DIR, Yang et al. 2021).

    u is the maximum over the valid steps of a bidirectional LSTM's outputs. Parameters are float32:
    `embedding` [vocabulary, dim], and under `lstm` those of torch.nn.LSTM by its names and in its
    shapes (`weight_ih_l0` [4 H, D], gates in the order input, forget, cell, output), drawn as torch
    draws them from U(-1/sqrt(H), 1/sqrt(H)).

    Attributes:
      vocabulary: number of words, with padding and unknown.
      dim: of the word vectors.
      hidden: H.
      layers: of the LSTM.
      dropout: of the word vectors and of the encoder's outputs, in training.
      dtype: of the activations; the cell's state and the features are float32.
    """

    vocabulary: int
    dim: int
    hidden: int
    layers: int = 2
    dropout: float = 0.2
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, sentences, sentence_mask):
        """Features of pairs.

        Args:
          sentences: i32[B, 2, T], ids of words.
          sentence_mask: bool[B, 2, T], which tokens are valid: from the first on, without gaps.
            What stands behind them changes nothing.

        Returns:
          f32[B, 8 H]; a sentence without any valid token counts as zeros.
        """
        training = self.is_mutable_collection("stats") and not self.is_initializing()
        drop = nn.Dropout(self.dropout, deterministic=not training)
        embedding = self.param(
            "embedding", nn.initializers.normal(1.0), (self.vocabulary, self.dim)
        )
        tokens = sentences.shape[-1]
        mask = sentence_mask.reshape(-1, tokens).T[..., None]  # [T, 2 B, 1]
        x = embedding.astype(self.dtype)[sentences.reshape(-1, tokens).T]  # [T, 2 B, dim]
        x = drop(LSTM(self.hidden, self.layers, name="lstm")(drop(x), mask)).astype(
            jnp.float32
        )  # [T, 2 B, 2 H]
        pooled = jnp.max(jnp.where(mask, x, -jnp.inf), axis=0)  # [2 B, 2 H]
        pooled = jnp.where(mask.any(0), pooled, 0.0).reshape(-1, 2, 2 * self.hidden)
        u, v = pooled[:, 0], pooled[:, 1]
        return jnp.concatenate([u, v, jnp.abs(u - v), u * v], axis=-1)  # [B, 8 H]


class LSTM(nn.Module):
    """Layers of a bidirectional LSTM over padded sequences: torch.nn.LSTM with its sequences
    packed."""

    hidden: int
    layers: int

    @nn.compact
    def __call__(self, x, mask):
        """Outputs of the last layer.

        Args:
          x: [T, N, D].
          mask: bool[T, N, 1], valid steps, without gaps from the first on.

        Returns:
          [T, N, 2 H], forward and backward outputs side by side; 0 behind the valid steps.
        """
        bound = self.hidden**-0.5
        draw = lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)  # noqa: E731
        for layer in range(self.layers):
            shapes = {
                "weight_ih": (4 * self.hidden, x.shape[-1]),
                "weight_hh": (4 * self.hidden, self.hidden),
            }
            shapes |= {"bias_ih": (4 * self.hidden,), "bias_hh": (4 * self.hidden,)}
            both = [
                [
                    self.param(f"{name}_l{layer}{direction}", draw, shape)
                    for name, shape in shapes.items()
                ]
                for direction in DIRECTIONS
            ]
            x = bidirectional(x, mask, *both)
        return x


def bidirectional(x, mask, forward, backward):
    """One bidirectional layer.

    (i, f, g, o) = W x_t + b + U h_(t-1) + b';  c_t = s(f) c_(t-1) + s(i) tanh(g);  h_t = s(o) tanh(c_t), s the sigmoid.

    What does not depend on h is one matrix product before the loop. The state stays zero where the
    mask is, so that the backward direction, which meets the padding first, starts at the last valid
    step.

    Args:
      x: [T, N, D].
      mask: bool[T, N, 1].
      forward: (W [4 H, D], U [4 H, H], b [4 H], b' [4 H]), float32.
      backward: the same of the other direction.

    Returns:
      [T, N, 2 H].
    """
    dtype = x.dtype

    def step(state, now):
        following = []
        for (h, c), (projected, valid), (_, recurrent, _, _) in zip(
            state, now, (forward, backward), strict=True
        ):
            gates = projected + jnp.matmul(
                h, recurrent.T.astype(dtype), preferred_element_type=jnp.float32
            )
            i, f, g, o = jnp.split(gates, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            following.append((jnp.where(valid, h, 0.0).astype(dtype), jnp.where(valid, c, 0.0)))
        return following, [h for h, _ in following]

    weights = jnp.concatenate([forward[0], backward[0]]).astype(dtype)  # [8 H, D]
    bias = jnp.concatenate([forward[2] + forward[3], backward[2] + backward[3]])
    projected = jnp.matmul(x, weights.T, preferred_element_type=jnp.float32) + bias  # [T, N, 8 H]
    ahead, behind = jnp.split(projected, 2, axis=-1)
    hidden = forward[1].shape[1]
    zero = jnp.zeros((x.shape[1], hidden), jnp.float32)
    state = [(zero.astype(dtype), zero)] * 2
    _, (h, reverse) = jax.lax.scan(step, state, [(ahead, mask), (behind[::-1], mask[::-1])])
    return jnp.concatenate([h, reverse[::-1]], axis=-1)
