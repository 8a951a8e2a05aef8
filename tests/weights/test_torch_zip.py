"""torch.save's files without unpickling: equal to the bit, and nothing in them is executed."""

import io
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest

from jaxord.weights import hf_clip, reading, torch_zip

torch = pytest.importorskip("torch")
SMALL = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)


def saved(tmp_path, state, **options):
    torch.save(state, tmp_path / "pytorch_model.bin", **options)
    return tmp_path / "pytorch_model.bin"


def assert_equal(file, state):
    archive = torch_zip.TorchZip(file)
    assert list(archive.keys()) == list(state)
    for name, tensor in state.items():
        array = archive.get_tensor(name)
        assert array.shape == tuple(tensor.shape), name
        assert array.dtype.name == str(tensor.dtype).removeprefix("torch."), name
        bits = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        assert np.array_equal(np.ascontiguousarray(array).reshape(-1).view(np.uint8), bits), name
        assert array.size == 0 or not array.flags.writeable


@pytest.fixture(scope="module")
def clip():
    from transformers import CLIPConfig, CLIPModel

    vision = SMALL | dict(image_size=16, patch_size=8)
    text = SMALL | dict(vocab_size=30, max_position_embeddings=8, eos_token_id=29)
    torch.manual_seed(0)
    return CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=8))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_a_clips_state_dict_is_equal_to_the_bit(clip, tmp_path, dtype):
    state = clip.to(getattr(torch, dtype)).state_dict()
    assert_equal(saved(tmp_path, state), state)
    clip.to(torch.float32)


def test_the_checkpoint_loads_as_its_safetensors_do(clip, tmp_path):
    clip.save_pretrained(tmp_path)
    wanted = hf_clip.parameters(hf_clip.read_settings(tmp_path))
    expected = hf_clip.load(tmp_path, wanted)
    saved(tmp_path, clip.state_dict())
    (tmp_path / "model.safetensors").unlink()
    loaded = hf_clip.load(tmp_path, wanted)
    assert list(loaded) == list(expected)
    assert all(np.array_equal(loaded[path], expected[path]) for path in expected)


def test_views_shared_and_tied_storages_and_parameters(tmp_path):
    base = torch.randn(6, 8)
    state = {
        "transposed": base.t(),
        "rows": base[2:4],
        "every second": base[1::2, ::3],
        "tied": base,
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "frozen": torch.nn.Parameter(torch.randn(3), requires_grad=False),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "ids": torch.arange(7).expand(1, -1),
        "double": torch.randn(2).double(),
        "bool": torch.tensor([True, False]),
        "later": torch.ones(3).to(torch.uint16),
    }
    assert_equal(saved(tmp_path, state), state)


def test_a_file_of_an_old_torch(tmp_path):
    """Torch 1.6 has no byte order and another prefix."""
    state = {"a": torch.randn(3)}
    with zipfile.ZipFile(saved(tmp_path, state)) as archive:
        names = [f"pytorch_model/{name}" for name in ("data.pkl", "data/0", "version")]
        entries = {name.replace("pytorch_model", "archive"): archive.read(name) for name in names}
    assert_equal(write(tmp_path, entries), state)


def write(folder, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(folder / "other.bin", "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return folder / "other.bin"


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def storage(kind=b"torch\nFloatStorage", key="0", count=b"K\x04", word="storage"):
    start = b"(" + text(word) + b"c" + kind + b"\n"
    return start + text(key) + text("cpu") + count + b"tQ"


def tensor(
    offset=b"K\x00",
    shape=b"K\x04\x85",
    stride=b"K\x01\x85",
    of=None,
    hooks=b"ccollections\nOrderedDict\n)R",
):
    start = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return start + (of or storage()) + offset + shape + stride + b"\x89" + hooks + b"tR"


def state_dict(value, key=None):
    return b"\x80\x02}" + (key or text("a")) + value + b"s."


HUGE = b"\x8a\x07" + (2**50).to_bytes(7, "little")
PROGRAMS = {
    "os.system": (b"\x80\x02cos\nsystem\n" + text("touch ran") + b"\x85R.", "names 'os.system'"),
    "eval": (b"\x80\x02cbuiltins\neval\n" + text("1") + b"\x85R.", "names 'builtins.eval'"),
    "posix": (state_dict(b"cposix\nsystem\n" + text("touch ran") + b"\x85R"), "'posix.system'"),
    "inst": (b"\x80\x02(" + text("touch ran") + b"ios\nsystem\n.", "the instruction INST"),
    "obj": (b"\x80\x02(ctorch\nFloatStorage\no.", "the instruction OBJ"),
    "newobj": (b"\x80\x02ctorch\nFloatStorage\n)\x81.", "the instruction NEWOBJ"),
    "stack global": (
        b"\x80\x02" + text("os") + text("system") + b"\x93.",
        "the instruction STACK_GLOBAL",
    ),
    "extension": (b"\x80\x02\x82\x01.", "the instruction EXT1"),
    "build": (b"\x80\x02}}" + text("__class__") + text("x") + b"sb.", "sets the state"),
    "build a tensor": (state_dict(tensor() + b"}b"), "sets the state"),
    "text id": (b"\x80\x02P0\n.", "the instruction PERSID"),
    "odd id": (state_dict(text("0") + b"Q"), "a storage has another form"),
    "other id": (state_dict(storage(word="module")), "a storage has another form"),
    "path": (state_dict(storage(key="../../etc/passwd")), "'data/../../etc/passwd' is missing"),
    "count": (state_dict(storage(count=b"K\x05")), "has 16 bytes, expected 5 of 4"),
    "missing entry": (state_dict(storage(key="7")), "'data/7' is missing"),
    "call a type": (state_dict(b"ctorch\nFloatStorage\n)R"), "calls what is no function"),
    "call a dict": (state_dict(b"})R"), "calls what is no function"),
    "arguments": (state_dict(b"ccollections\nOrderedDict\nK\x01\x85R"), "has another form"),
    "outside": (state_dict(tensor(offset=b"K\x01")), r"shape \(4,\) lies outside"),
    "negative": (state_dict(tensor(offset=b"J\xff\xff\xff\xff")), "a tensor has another form"),
    "huge": (state_dict(tensor(shape=HUGE + b"\x85")), "a number that no tensor needs"),
    "expanded": (
        state_dict(tensor(shape=b"J\xff\xff\xff\x7f\x85", stride=b"K\x00\x85")),
        "lies outside of its storage",
    ),
    "ranks": (state_dict(tensor(stride=b")")), "a tensor has another form"),
    "hooks": (state_dict(tensor(hooks=b"}" + text("h") + b"K\x01s")), "a tensor has another form"),
    "boolean size": (state_dict(tensor(shape=b"\x88\x85")), "a tensor has another form"),
    "misaligned": (
        state_dict(
            b"ctorch._utils\n_rebuild_tensor_v3\n("
            + storage(b"torch\nByteStorage", count=b"K\x10")
            + b"K\x00K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)Rctorch\nuint64\ntR"
        ),
        None,  # 16 bytes are two uint64
    ),
    "key": (state_dict(tensor(), b"K\x01"), "a name in its pickle is no text"),
    "list": (b"\x80\x02].", "the instruction EMPTY_LIST"),
    "value": (state_dict(b"K\x01"), "'a' is a int, expected a tensor"),
    "nested": (state_dict(b"}"), "'a' is a dict, expected a tensor"),
    "underflow": (b"\x80\x02R.", "damaged"),
    "no mark": (b"\x80\x02t.", "damaged"),
    "memo": (b"\x80\x02h\x05.", "damaged"),
    "no stop": (b"\x80\x02}", "pickle exhausted before seeing STOP"),
    "empty": (b"", "pickle exhausted"),
    "cut text": (b"\x80\x02X\xff\xff\xff\xff.", "expected 4294967295 bytes"),
    "protocol": (pickle.dumps({}, 4), "has the protocol 4, expected 2"),
    "two values": (b"\x80\x02}}.", "is no dict of tensors"),
    # 2 ** 60 leaves if anything compared, printed or hashed them.
    "laughs": (b"\x80\x02)" + b"q\x00h\x00\x86" * 60 + b".", "is no dict of tensors"),
    "laughing key": (
        b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"K\x01s.",
        "a name in its pickle is no text",
    ),
    "cycle": (b"\x80\x02}q\x00" + text("a") + b"h\x00s.", "'a' is a dict, expected a tensor"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_hostile_pickle_executes_nothing(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    events = []
    watched = ("exec", "compile", "import", "os.system", "subprocess.Popen", "pickle.find_class")
    active = [True]
    sys.addaudithook(lambda event, _: active and event in watched and events.append(event))
    content, words = PROGRAMS[program]
    file = write(tmp_path, {"x/data.pkl": content, "x/data/0": bytes(16)})
    if words is None:
        assert torch_zip.TorchZip(file).get_tensor("a").tolist() == [0, 0]
    else:
        events.clear()
        with pytest.raises(ValueError, match=words) as error:
            torch_zip.TorchZip(file)
        active.clear()
        assert "\n" not in str(error.value) and "cannot be read safely" in str(error.value)
    active.clear()
    assert not events and not (tmp_path / "ran").exists()


def test_hostile_archives(tmp_path):
    program = state_dict(tensor())
    whole = {"x/data.pkl": program, "x/data/0": bytes(16)}
    assert torch_zip.TorchZip(write(tmp_path, whole)).get_tensor("a").tolist() == [0] * 4
    cases = [
        ({"x/data/0": bytes(16)}, "expected one <name>/data.pkl, found 0"),
        ({**whole, "y/data.pkl": program}, "expected one <name>/data.pkl, found 2"),
        ({**whole, "data/0": bytes(16)}, "an entry lies elsewhere"),
        ({**whole, "x/byteorder": b"big"}, "byte order is b'big'"),
        ({**whole, "x/constants.pkl": b""}, "TorchScript"),
        ({**whole, "x/data.pkl": b"}0" * 2**21 + b"}."}, "too large for a state dict"),
    ]
    for entries, words in cases:
        with pytest.raises(ValueError, match=words):
            torch_zip.TorchZip(write(tmp_path, entries))
    bomb = {**whole, "x/data/0": bytes(2**26)}
    with pytest.raises(ValueError, match="'x/data.pkl' is compressed"):
        torch_zip.TorchZip(write(tmp_path, bomb, zipfile.ZIP_DEFLATED))


def changed(file, old, new, count=1):
    content = file.read_bytes()
    assert content.count(old) >= count
    file.write_bytes(new.join(content.rsplit(old, count)))
    return file


def test_overlapping_twofold_and_damaged_entries(tmp_path):
    entries = {"x/data.pkl": state_dict(tensor()), "x/data/0": bytes(16), "x/data/1": bytes(16)}
    file = write(tmp_path, entries)
    with zipfile.ZipFile(file) as archive:
        first, second = (archive.getinfo(f"x/data/{key}").header_offset for key in "01")
    # The central directory lets both entries lie at one place.
    content = file.read_bytes()
    end = content.rindex(struct.pack("<I", second) + b"x/data/1")
    file.write_bytes(content[:end] + struct.pack("<I", first) + content[end + 4 :])
    with pytest.raises(ValueError, match="its entries overlap"):
        torch_zip.TorchZip(file)
    with pytest.raises(ValueError, match="an entry stands twice"):
        torch_zip.TorchZip(changed(write(tmp_path, entries), b"x/data/1", b"x/data/0"))
    file = changed(write(tmp_path, {**entries, "x/data/0": b"16 bytes of data"}), b"16 b", b"17 b")
    archive = torch_zip.TorchZip(file)
    with pytest.raises(ValueError, match="the checksum of data/0 differs"):
        archive.get_tensor("a")
    for size in (0, 10, 40, 100, 150):
        (tmp_path / "cut.bin").write_bytes(file.read_bytes()[:size])
        with pytest.raises(ValueError, match="it is no zip"):
            torch_zip.TorchZip(tmp_path / "cut.bin")


def test_any_flipped_byte_is_noticed_or_harmless(tmp_path):
    state = {"a": torch.arange(4.0), "b": torch.arange(2)}
    content = saved(tmp_path, state).read_bytes()
    file, generator = tmp_path / "flipped.bin", np.random.default_rng(0)
    for place in generator.integers(0, len(content), 300):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(generator.integers(8))
        file.write_bytes(damaged)
        try:
            archive = torch_zip.TorchZip(file)
            arrays = {name: archive.get_tensor(name) for name in archive.keys()}
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            assert all(np.array_equal(arrays[name], x.numpy()) for name, x in state.items())


def test_files_of_before_zip_and_other_contents_are_refused(tmp_path):
    old = saved(tmp_path, {"a": torch.ones(2)}, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"no zip, so damaged, or in torch's format before 1\.6"):
        torch_zip.TorchZip(old)
    for state, words in (
        ({"a": torch.ones(2), "epoch": 3}, "'epoch' is a int, expected a tensor"),
        ({"state_dict": {"a": torch.ones(2)}}, "'state_dict' is a dict"),
        ([torch.ones(2)], "EMPTY_LIST"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "torch.ComplexFloatStorage"),
        ({"a": torch.ones(2).to_sparse()}, "torch._utils._rebuild_sparse_tensor"),
        (torch.nn.Linear(2, 2), "names 'torch.nn.modules.linear.Linear'"),
    ):
        with pytest.raises(ValueError, match=words):
            torch_zip.TorchZip(saved(tmp_path, state))
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    (tmp_path / "program.pt").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="a program"):
        torch_zip.TorchZip(tmp_path / "program.pt")


@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_float8_is_refused_by_name(tmp_path, form):
    from safetensors.torch import save_file

    state = {"a.weight": torch.ones(2, 2).to(torch.float8_e4m3fn)}
    file = tmp_path / f"pytorch_model.{form}"
    torch.save(state, file) if form == "bin" else save_file(state, file)
    shapes = {"a/kernel": np.zeros((2, 2), np.float32)}
    rules = (hf_clip.source_name, hf_clip.from_source, lambda _: True)
    words = "a.weight.* float8_e4m3fn in the weights" if form == "bin" else "a.weight .*F8_E4M3"
    with pytest.raises(ValueError, match=f"{words}, expected"):
        reading.fit(reading.Checkpoint([file]), shapes, *rules, file)
