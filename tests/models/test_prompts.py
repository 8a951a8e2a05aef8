"""Prompts against plain loops. K = 4 ranks, C = 8."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import base
from jaxord.models import prompts, tokens

K, C = 4, 8
KEY = jax.random.key(0)


def sentences(**fields):
    config = base().prompt
    config.update({"template": "of age {} now", **fields})
    made = tokens.sentences(config, ("a", "bb", "ccc", "d"), tokens.byte_tokenizer(), 77)
    slots = made["prompt_slots"]
    embeddings = jax.random.normal(KEY, (258, C))[made["prompt_tokens"]]
    return slots, embeddings, int((slots == 1).sum(1).max()), int((slots == 2).sum(1).max())


def run(kind, slots, embeddings, contexts, rank_tokens, drawn=(False, False), **settings):
    module = kind(contexts, rank_tokens, *drawn, **settings)
    out, variables = module.init_with_output(KEY, embeddings, slots)
    return (
        np.asarray(out),
        variables.get("params", {}),
        lambda params: module.apply({"params": params}, embeddings, slots),
    )


@pytest.mark.parametrize(
    "kind", [prompts.FixedPrompt, prompts.ContextPrompt, prompts.ConceptPrompt]
)
def test_prompts_that_start_from_words_change_nothing_at_first(kind):
    slots, embeddings, contexts, rank_tokens = sentences()
    out, _, _ = run(kind, slots, embeddings, contexts, rank_tokens)
    np.testing.assert_array_equal(out, embeddings)


def test_concept_prompt_writes_context_and_each_ranks_own_vectors():
    slots, embeddings, contexts, rank_tokens = sentences()
    _, params, apply = run(prompts.ConceptPrompt, slots, embeddings, contexts, rank_tokens)
    params = jax.tree.map(lambda x: jax.random.normal(jax.random.key(1), x.shape), params)
    assert params["context"].shape == (contexts, C) and params["ranks"].shape == (K, rank_tokens, C)
    expected = np.array(embeddings)
    for k in range(K):
        seen = {1: 0, 2: 0}
        for t in range(slots.shape[1]):
            kind = slots[k, t]
            if kind in seen:
                expected[k, t] = (params["context"] if kind == 1 else params["ranks"][k])[
                    seen[kind]
                ]
                seen[kind] += 1
    np.testing.assert_array_equal(apply(params), expected)


def test_drawn_vectors_are_small_and_gradients_reach_only_their_positions():
    slots, embeddings, contexts, rank_tokens = sentences(
        template="{}", context_tokens=16, rank_tokens=2
    )
    out, params, apply = run(
        prompts.ConceptPrompt, slots, embeddings, contexts, rank_tokens, (True, True)
    )
    assert contexts == 16 and rank_tokens == 2
    assert abs(float(params["context"].std()) - 0.02) < 0.005
    gradient = jax.grad(lambda p: jnp.sum(apply(p)))(params)
    np.testing.assert_array_equal(
        gradient["context"], np.full((16, C), K)
    )  # shared by all K sentences
    np.testing.assert_array_equal(gradient["ranks"], np.ones((K, 2, C)))


@pytest.mark.parametrize("ranks_number, base_ranks", [(7, 3), (5, 1), (101, 9), (4, 4)])
@pytest.mark.parametrize("interpolation", ["linear", "inv_prop", "normal"])
def test_interpolation_weights_equal_a_loop(ranks_number, base_ranks, interpolation):
    found = prompts.interpolation_weights(ranks_number, base_ranks, interpolation)
    last = ranks_number - 1
    places = (
        [last / 2] if base_ranks == 1 else [b * last / (base_ranks - 1) for b in range(base_ranks)]
    )
    for r in range(ranks_number):
        d = [abs(r - p) for p in places]
        raw = {
            "linear": [1 - x / (ranks_number - 1) for x in d],
            "inv_prop": [1 / (x + 1e-5) for x in d],
            "normal": [np.exp(-(x**2)) for x in d],
        }[interpolation]
        np.testing.assert_allclose(
            found[r], np.array(raw) / sum(raw), rtol=2e-4, atol=1e-7
        )  # 1/(d + 1e-5) in float32


def test_linear_weights_of_the_first_rank():
    np.testing.assert_allclose(
        prompts.interpolation_weights(7, 3, "linear")[0], [2 / 3, 1 / 3, 0], atol=1e-7
    )


def test_rank_prompt_mixes_base_ranks():
    slots, embeddings, contexts, rank_tokens = sentences(rank_tokens=2)
    out, params, _ = run(prompts.RankPrompt, slots, embeddings, contexts, rank_tokens, base_ranks=3)
    assert params["ranks"].shape == (3, 2, C)
    weights = prompts.interpolation_weights(K, 3, "linear")
    for k in range(K):
        np.testing.assert_allclose(
            out[k][slots[k] == 2],
            sum(weights[k, s] * params["ranks"][s] for s in range(3)),
            rtol=1e-6,
        )
    with pytest.raises(ValueError, match="it takes one of"):
        prompts.interpolation_weights(5, 3, "cubic")


def test_rank_prompt_starts_from_the_words_of_its_base_names():
    slots, embeddings, contexts, rank_tokens = sentences(name="RankPrompt", base_names=("xy", "z"))
    base = jax.random.normal(jax.random.key(2), (2, rank_tokens, C))
    module = prompts.RankPrompt(contexts, rank_tokens, False, False, base_ranks=2)
    out, variables = module.init_with_output(KEY, embeddings, slots, base)
    np.testing.assert_array_equal(variables["params"]["ranks"], base)
    np.testing.assert_allclose(
        out[0][slots[0] == 2], base[0], rtol=1e-6
    )  # of two base ranks the ends are themselves
    with pytest.raises(
        ValueError, match="gives 2 base ranks of 3 tokens; expected base_ranks = 3 of 3"
    ):
        prompts.RankPrompt(contexts, rank_tokens, False, False).init(KEY, embeddings, slots, base)


def former_in_numpy(params, x, there, heads):
    """x [K, n, C], there bool[K, n]: attention among the ranks that have a token at a position."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    out = np.zeros(x.shape)
    for t in range(x.shape[1]):
        h = x[:, t] @ p["input"]["kernel"] + p["input"]["bias"]  # [K, A]
        for layer in range(2):
            norm, attention = p[f"{layer}_norm"], p[f"{layer}_attention"]
            y = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-5) * norm[
                "scale"
            ] + norm["bias"]
            for i in range(heads):
                q, k, v = (
                    y @ attention[n]["kernel"][:, i] + attention[n]["bias"][i]
                    for n in ("query", "key", "value")
                )
                scores = np.exp(q @ k.T / np.sqrt(q.shape[1])) * there[:, t]
                h = h + scores / scores.sum(1, keepdims=True) @ v @ attention["out"]["kernel"][i]
            h = h + attention["out"]["bias"]
        out[:, t] = h @ p["output"]["kernel"] + p["output"]["bias"]
    return out


def test_rank_former_attends_among_the_ranks_that_have_a_token():
    slots, embeddings, contexts, rank_tokens = sentences(
        context_tokens=3
    )  # names of 1, 2, 3 and 1 tokens
    assert contexts == 3 and slots[0, 1:4].tolist() == [1, 1, 1]
    module = prompts.RankFormer(
        contexts, rank_tokens, True, False, alpha=0.25, width=4, heads=2, layers=2
    )
    fast = {"xla_backend_optimization_level": 0}
    apply = jax.jit(
        lambda params, x: module.apply({"params": params}, x, slots), compiler_options=fast
    )
    out, variables = jax.jit(module.init_with_output, compiler_options=fast)(KEY, embeddings, slots)
    params = variables["params"]
    assert sorted(params) == ["context", "rank_former"] and abs(params["context"]).max() < 0.1
    here = slots == 2
    np.testing.assert_allclose(
        np.asarray(out)[here], 0.75 * np.asarray(embeddings)[here], rtol=1e-6
    )  # f_out starts at 0
    same = (slots == 0) | (slots == 3)
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda a: draw.normal(size=a.shape).astype(np.float32), params)
    out = apply(params, embeddings)
    words, there = np.zeros((K, rank_tokens, C)), np.arange(rank_tokens) < here.sum(1)[:, None]
    words[there] = np.asarray(embeddings)[here]
    expected = 0.75 * words + 0.25 * former_in_numpy(params["rank_former"], words, there, 2)
    np.testing.assert_allclose(np.asarray(out)[here], expected[there], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(out)[same], np.asarray(embeddings)[same])
    np.testing.assert_array_equal(
        np.asarray(out)[slots == 1].reshape(K, 3, C), np.tile(params["context"], (K, 1, 1))
    )
    noise = jnp.where(
        jnp.asarray(here)[..., None], embeddings, 7.0
    )  # what a shorter name lacks changes nothing
    np.testing.assert_array_equal(np.asarray(apply(params, noise))[here], np.asarray(out)[here])


def test_rank_former_refuses_what_it_cannot_mix():
    slots, embeddings, contexts, rank_tokens = sentences(context_tokens=3)
    with pytest.raises(ValueError, match="prompt.rank_tokens has none; expected 0"):
        prompts.RankFormer(contexts, rank_tokens, True, True).init(KEY, embeddings, slots)
    with pytest.raises(ValueError, match="width is 6; expected a multiple of its 4 heads"):
        prompts.RankFormer(contexts, rank_tokens, True, False, width=6, heads=4).init(
            KEY, embeddings, slots
        )
