"""OpenCLIP's names: there and back, read as a checkpoint, and pickles converted by the tool."""

import collections
import json
import pickle
import sys
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxord.models.clip import ClipSettings, Tower
from jaxord.weights import hf_clip, open_clip
from tools import convert_weights
from tools.sources import torchscript

SMALL = ClipSettings(
    vision=Tower(width=128, layers=2, heads=2, mlp=512),
    text=Tower(width=64, layers=1, heads=1, mlp=256),
    image_size=16,
    patch_size=8,
    vocab_size=30,
    max_positions=12,
    projection_dim=8,
    eos_token_id=29,
)


def tensors(settings):
    """By OpenCLIP's names and shapes, written down from its modules and not by our rule."""
    rng = np.random.default_rng(0)

    def block(start, width, mlp):
        shapes = {
            "ln_1.weight": (width,),
            "ln_1.bias": (width,),
            "ln_2.weight": (width,),
            "ln_2.bias": (width,),
            "attn.in_proj_weight": (3 * width, width),
            "attn.in_proj_bias": (3 * width,),
            "attn.out_proj.weight": (width, width),
            "attn.out_proj.bias": (width,),
            "mlp.c_fc.weight": (mlp, width),
            "mlp.c_fc.bias": (mlp,),
            "mlp.c_proj.weight": (width, mlp),
            "mlp.c_proj.bias": (width,),
        }
        return {f"{start}.{name}": shape for name, shape in shapes.items()}

    v, t, s = settings.vision.width, settings.text.width, settings
    shapes = {
        "visual.class_embedding": (v,),
        "visual.positional_embedding": (1 + (s.image_size // s.patch_size) ** 2, v),
        "visual.proj": (v, s.projection_dim),
        "visual.conv1.weight": (v, 3, s.patch_size, s.patch_size),
        **{
            f"visual.{norm}.{leaf}": (v,)
            for norm in ("ln_pre", "ln_post")
            for leaf in ("weight", "bias")
        },
        "positional_embedding": (s.max_positions, t),
        "text_projection": (t, s.projection_dim),
        "logit_scale": (),
        "token_embedding.weight": (s.vocab_size, t),
        "ln_final.weight": (t,),
        "ln_final.bias": (t,),
    }
    for i in range(s.vision.layers):
        shapes |= block(f"visual.transformer.resblocks.{i}", v, s.vision.mlp)
    for i in range(s.text.layers):
        shapes |= block(f"transformer.resblocks.{i}", t, s.text.mlp)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("open_clip")
    save_file(tensors(SMALL), folder / open_clip.WEIGHTS)
    form = open_clip.config(SMALL, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    (folder / open_clip.CONFIG).write_text(json.dumps(form))
    return folder


def test_names_go_there_and_back_and_the_rows_are_where_they_belong():
    theirs = tensors(SMALL)
    ours = open_clip.to_hf({**theirs, "attn_mask": np.zeros((2, 2), np.float32)})
    assert set(ours) == {hf_clip.source_name(path) for path in hf_clip.parameters(SMALL)}
    joined = theirs["visual.transformer.resblocks.1.attn.in_proj_weight"]
    np.testing.assert_array_equal(
        ours["vision_model.encoder.layers.1.self_attn.k_proj.weight"], joined[128:256]
    )
    np.testing.assert_array_equal(ours["text_projection.weight"], theirs["text_projection"].T)
    again = open_clip.from_hf(ours)
    assert again.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_sizes_come_from_the_config_or_from_the_shapes():
    assert open_clip.settings_from_config(open_clip.config(SMALL)["model_cfg"]) == SMALL
    assert open_clip.settings_from_shapes(tensors(SMALL), "quick_gelu") == SMALL
    vit = {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 512,
            "heads": 8,
            "layers": 12,
        },
    }
    found = open_clip.settings_from_config(vit)
    assert (found.vision.heads, found.vision.mlp, found.vision.hidden_act, found.eos_token_id) == (
        12,
        3072,
        "gelu",
        49407,
    )
    with pytest.raises(ValueError, match="no plain CLIP.*vision_cfg.timm_model_name"):
        open_clip.settings_from_config(
            vit | {"vision_cfg": {"timm_model_name": "convnext", "image_size": 224}}
        )


def test_a_folder_with_these_files_is_a_checkpoint(folder):
    assert hf_clip.read_settings(folder) == SMALL
    assert hf_clip.preprocessing(folder) == dict(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), size=16)
    found, theirs = hf_clip.load(folder, hf_clip.parameters(SMALL)), tensors(SMALL)
    np.testing.assert_array_equal(found["visual_projection/kernel"], theirs["visual.proj"])
    image = {
        path: shape
        for path, shape in hf_clip.parameters(SMALL).items()
        if path.startswith("vision_model/")
    }
    assert list(hf_clip.load(folder, image)) == list(image)


def test_what_does_not_fit_is_reported(folder, tmp_path):
    stored = tensors(SMALL) | {"visual.extra": np.ones(2, np.float32)}
    del stored["ln_final.bias"]
    save_file(stored, tmp_path / open_clip.WEIGHTS)
    (tmp_path / open_clip.CONFIG).write_text((folder / open_clip.CONFIG).read_text())
    with pytest.raises(
        ValueError, match="(?s)missing: text_model.final_layer_norm.bias.*unexpected: visual.extra"
    ):
        hf_clip.load(tmp_path, hf_clip.parameters(SMALL))


def test_pickles_are_converted_by_the_tool(folder, tmp_path):
    torch = pytest.importorskip("torch")
    state = {name: torch.tensor(array).half() for name, array in tensors(SMALL).items()}
    torch.save({"state_dict": state}, tmp_path / "clip.pt")
    with pytest.raises(
        ValueError, match=r"clip.pt is a file.*python tools/convert_weights.py --source=<file>"
    ):
        hf_clip.load(tmp_path / "clip.pt", hf_clip.parameters(SMALL))
    convert_weights.convert(tmp_path / "clip.pt", tmp_path / "out")
    assert hf_clip.read_settings(tmp_path / "out") == SMALL
    found = hf_clip.load(tmp_path / "out", hf_clip.parameters(SMALL))
    expected = hf_clip.load(folder, hf_clip.parameters(SMALL))
    for path, array in expected.items():
        np.testing.assert_array_equal(
            found[path], array.astype(np.float16).astype(np.float32), err_msg=path
        )


def original(settings):
    """A CLIP with the modules and names of OpenAI's program, as a torch.nn.Module (images, texts)
    -> logits of the images."""
    import torch
    from torch import nn

    class QuickGELU(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(1.702 * x)

    class Block(nn.Module):
        def __init__(self, tower, mask=None):
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(tower.width), nn.LayerNorm(tower.width)
            self.attn = nn.MultiheadAttention(tower.width, tower.heads)
            wide, back = nn.Linear(tower.width, tower.mlp), nn.Linear(tower.mlp, tower.width)
            self.mlp = nn.Sequential(
                collections.OrderedDict(c_fc=wide, gelu=QuickGELU(), c_proj=back)
            )
            self.attn_mask = mask

        def forward(self, x):  # [T, N, C]
            y = self.ln_1(x)
            x = x + self.attn(y, y, y, need_weights=False, attn_mask=self.attn_mask)[0]
            return x + self.mlp(self.ln_2(x))

    class Transformer(nn.Module):
        def __init__(self, tower, mask=None):
            super().__init__()
            self.resblocks = nn.Sequential(*(Block(tower, mask) for _ in range(tower.layers)))

        def forward(self, x):  # [N, T, C]
            return self.resblocks(x.transpose(0, 1)).transpose(0, 1)

    def drawn(*shape):
        return nn.Parameter(0.2 * torch.randn(*shape))

    class Visual(nn.Module):
        def __init__(self):
            super().__init__()
            width, patch = settings.vision.width, settings.patch_size
            self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
            self.class_embedding = drawn(width)
            self.positional_embedding = drawn(1 + (settings.image_size // patch) ** 2, width)
            self.ln_pre, self.transformer = nn.LayerNorm(width), Transformer(settings.vision)
            self.ln_post, self.proj = nn.LayerNorm(width), drawn(width, settings.projection_dim)

        def forward(self, image):
            x = self.conv1(image).flatten(2).transpose(1, 2)
            x = (
                torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], 1)
                + self.positional_embedding
            )
            return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            width, length = settings.text.width, settings.max_positions
            self.visual, self.logit_scale = Visual(), nn.Parameter(torch.tensor(2.0))
            self.transformer = Transformer(
                settings.text, torch.full((length, length), -torch.inf).triu(1)
            )
            self.token_embedding, self.positional_embedding = (
                nn.Embedding(settings.vocab_size, width),
                drawn(length, width),
            )
            self.ln_final, self.text_projection = (
                nn.LayerNorm(width),
                drawn(width, settings.projection_dim),
            )
            for name in ("input_resolution", "context_length", "vocab_size"):
                self.register_buffer(name, torch.tensor(7))

        def forward(self, image, text):
            x = self.transformer(self.token_embedding(text) + self.positional_embedding)
            texts = (
                self.ln_final(x)[torch.arange(x.shape[0]), text.argmax(-1)] @ self.text_projection
            )
            unit = [x / x.norm(dim=1, keepdim=True) for x in (self.visual(image), texts)]
            return self.logit_scale.exp() * unit[0] @ unit[1].T

    torch.manual_seed(0)
    return Whole().half().float().eval()  # OpenAI's are stored in half precision


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """(TorchScript archive of such a CLIP, images, texts, logits)."""
    torch = pytest.importorskip("torch")
    file, model = tmp_path_factory.mktemp("openai") / "ViT.pt", original(SMALL)
    images, texts = torch.randn(3, 3, 16, 16), torch.randint(1, 28, (2, 12))
    texts[0, 5], texts[1, 11] = 29, 29
    with torch.no_grad():
        expected = model(images, texts).numpy()
        torch.jit.trace(model, (images, texts), check_trace=False).half().save(
            file
        )  # the trace shares the model's tensors
    return file, images, texts, expected


def test_an_archive_of_openai_becomes_a_checkpoint_without_torch(archive, tmp_path, monkeypatch):
    import torch
    from transformers import CLIPModel

    file, images, texts, expected = archive
    state = torch.jit.load(file).state_dict()
    found = torchscript.read(file)
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name], tensor.numpy(), strict=True, err_msg=name)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)  # importing it is an error
        convert_weights.main([f"--source={file}", f"--output={tmp_path / 'out'}"])
    assert hf_clip.read_settings(tmp_path / "out") == SMALL
    model, report = CLIPModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), report
    with torch.no_grad():
        logits = model(input_ids=texts, pixel_values=images).logits_per_image.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize(
    "change, words",
    [
        (
            (b"ctorch._utils\n_rebuild_tensor_v2\n", b"cos\nsystem\n"),
            "names os.system, which is no part",
        ),
        ((b"ctorch\nHalfStorage\n", b"ctorch\nload\n"), "names torch.load"),
        ((b"K\x1eK\x40", b"K\x1fK\x40"), "lies outside of its storage"),
        (None, "cannot be read"),
    ],
)
def test_an_archive_of_something_else_is_refused(archive, tmp_path, change, words):
    other = tmp_path / "evil.pt"
    with zipfile.ZipFile(archive[0]) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("/data.pkl"):
                changed = content.replace(*change) if change else content[:100]
                assert changed != content
                content = changed
            target.writestr(name, content)
    with pytest.raises(ValueError, match=words):
        convert_weights.convert(other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_tool_runs_no_code(tmp_path):
    pytest.importorskip("torch")

    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    (tmp_path / "evil.bin").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(ValueError, match="holds more than tensors"):
        convert_weights.convert(tmp_path / "evil.bin", tmp_path / "out")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_other_files_keep_their_names_and_companions(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"module.conv1.weight": torch.ones(2, 2)}, tmp_path / "net.pth")
    (tmp_path / "config.json").write_text("{}")
    convert_weights.convert(tmp_path / "net.pth", tmp_path / "out")
    assert set(load_file(tmp_path / "out/model.safetensors")) == {"conv1.weight"}
    assert (tmp_path / "out/config.json").exists()
    with pytest.raises(ValueError, match="is not empty"):
        convert_weights.convert(tmp_path / "net.pth", tmp_path / "out")
