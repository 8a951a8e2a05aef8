"""Heads against numpy. B = 5, K = 4, D = 8."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxord.models import heads

B, K, D = 5, 4, 8
KEYS = jax.random.split(jax.random.key(0), 4)
ARRAYS = {
    "image_embeds": 3.0 * jax.random.normal(KEYS[0], (B, D)),
    "text_embeds": jax.random.normal(KEYS[1], (K, D)),
    "logit_scale": jnp.log(100.0),
    "logits": jax.random.normal(KEYS[2], (B, K)),
    "rank_values": jnp.array([0.0, 13.0, 19.0, 35.0]),
}


def run(head):
    out, variables = head.init_with_output(KEYS[3], ARRAYS)
    return out, variables.get("params", {})


def test_cosine_logits_normalise_both_sides():
    out, params = run(heads.CosineLogits())
    image, text = (np.asarray(ARRAYS[n], np.float64) for n in ("image_embeds", "text_embeds"))
    cosine = image @ text.T / np.linalg.norm(image, axis=1)[:, None] / np.linalg.norm(text, axis=1)
    np.testing.assert_allclose(out["logits"], 100 * cosine, rtol=1e-5, atol=1e-4)
    assert not params


def test_bin_regressor_is_numclips_equation():
    out, params = run(heads.BinRegressor())
    assert {k: v["kernel"].shape for k, v in params.items()} == {"hidden": (K, 2 * K), "delta": (2 * K, K)}
    logits = np.asarray(ARRAYS["logits"], np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    hidden = np.maximum(logits @ params["hidden"]["kernel"] + params["hidden"]["bias"], 0)
    delta = np.tanh(hidden @ params["delta"]["kernel"] + params["delta"]["bias"])
    expected = [sum(p[i, k] * float(ARRAYS["rank_values"][k]) / (1 + delta[i, k]) for k in range(K)) for i in range(B)]
    np.testing.assert_allclose(out["value"], expected, rtol=1e-5)


def test_adapter_mixes_and_has_no_bias():
    out, params = run(heads.Adapter(ratio=0.8))
    x = np.asarray(ARRAYS["image_embeds"], np.float64)
    assert params["down"]["kernel"].shape == (D, D // 4) and set(params["down"]) == {"kernel"}
    adapted = np.maximum(np.maximum(x @ params["down"]["kernel"], 0) @ params["up"]["kernel"], 0)
    np.testing.assert_allclose(out["image_embeds"], 0.8 * adapted + 0.2 * x, rtol=1e-5, atol=1e-6)


def test_regressor_starts_on_the_labels_scale():
    out, params = run(heads.Regressor())
    values = np.asarray(ARRAYS["rank_values"])
    raw = np.asarray(ARRAYS["image_embeds"]) @ params["Dense_0"]["kernel"][:, 0]
    np.testing.assert_allclose(out["value"], values.mean() + values.std() * raw, rtol=1e-4)
    assert run(heads.Classifier())[0]["logits"].shape == (B, K)
