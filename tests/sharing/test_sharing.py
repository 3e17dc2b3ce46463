"""Publishing and loading: what is written is what is loaded, nothing private leaves, and nothing hostile comes in."""

import io
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from PIL import Image
from share_loopback import make_run

import expost
from expost.commands.publishing import pull, push
from expost.densities import load_density
from expost.errors import DataError, UsageError
from expost.generators.generator import Generator
from expost.generators.strings import StringGenerator
from expost.grammar.grammars import load_grammar
from expost.registry import Part
from expost.run import Run
from expost.sharing import from_pretrained, save_pretrained
from expost.sharing.kinds import LARGEST_PICTURE, save_fitting
from expost.utils.store import read_json, read_tensors, write_json, write_tensors

GRAMMAR = Part("grammar", {"grammar": load_grammar("expressions").text, "length": 15})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a private path, trained and evaluated."""
    folder = tmp_path_factory.mktemp("secret-place")
    np.savez(folder / "digits-of-mine.npz", x=torch.randint(0, 256, (120, 1, 32, 32), dtype=torch.uint8).numpy())
    run = expost.train("rae-l2", folder / "digits-of-mine.npz", folder / "run", epochs=1, width=4, tensorboard=False)
    expost.fit(run, "gmm", components=2)
    expost.evaluate(run, ("gaussian", "gmm"), ("prd", "neighbours"), features="pixels")
    return run


@pytest.fixture(scope="module")
def published(run, tmp_path_factory):
    return save_pretrained(run, tmp_path_factory.mktemp("out") / "published", license="cc-by-4.0")


@pytest.fixture
def copy(published, tmp_path):
    """A published run to be tampered with."""
    return Path(shutil.copytree(published, tmp_path / "copy"))


def test_a_published_run_loads_without_its_data_and_samples_the_same(run, published, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    loaded = from_pretrained(str(published), device="cpu")
    assert isinstance(loaded, Generator)
    original = run.generator("cpu")
    assert set(loaded.densities) == set(original.densities) == {"gaussian", "gmm"}
    for name in original.densities:
        assert torch.equal(loaded.sample(8, name, seed=3), original.sample(8, name, seed=3))
    x = run.data().test.x[:5]
    assert torch.equal(loaded.encode(x), original.encode(x))
    names = {path.relative_to(published).as_posix() for path in published.rglob("*") if path.is_file()}
    assert names == {
        "README.md", "config.json", "model.safetensors", "metrics.json", "samples.png", "interpolations.png",
        "densities/fitted_on.json", "densities/gaussian.safetensors", "densities/gmm.safetensors",
    }  # fmt: skip


def test_nothing_published_names_a_folder_of_this_machine(run, published):
    for path in published.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"secret-place" not in content, path
            assert str(published.parent).encode() not in content, path
    assert "secret-place" in json.dumps(read_json(run.folder / "config.json"))  # it was there to be left out
    assert "secret-place" not in json.dumps(read_json(run.folder / "metrics.json"))
    assert read_json(published / "config.json")["data"]["name"] == "digits-of-mine.npz"
    assert {score["card"]["reference"] for score in read_json(published / "metrics.json")["scores"]} == {
        "digits-of-mine.npz test"
    }


def test_the_card_is_generated_from_the_run(run, published, monkeypatch):
    text = (published / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["library_name"] == "expost"
    assert header["license"] == "cc-by-4.0"
    assert "rae-l2" in header["tags"]
    parameters = sum(p.numel() for p in run.model("cpu").parameters())
    assert f"{parameters:,} parameters" in text
    for name, alt in re.findall(r"!\[(.*?)\]\((.*?)\)", text):
        assert name
        assert (published / alt).is_file()
    scores = read_json(run.folder / "metrics.json")["scores"]
    assert scores
    table = text.split("## Scores")[1].split("<details>")[0]
    for score in scores:
        assert f"{score['value']:.4g}" in table
    details = [json.loads(block) for block in re.findall(r"```json\n(.*?)\n```", text, re.DOTALL)]
    expected = [json.loads(json.dumps(score["card"]).replace(f"{run.folder.parent}/", "")) for score in scores]
    assert all(card in details for card in expected)
    assert all(card in expected for card in details)
    assert text.count("<details>") == text.count("</details>") == 1
    code = re.search(r"```python\n(.*?)\n```", text, re.DOTALL)[1]
    assert len(code.splitlines()) == 3
    scope = {}
    monkeypatch.chdir(published.parent)
    exec(code.replace("expost.from_pretrained", "load"), {"load": from_pretrained}, scope)
    assert scope["images"].shape == (64, 1, 32, 32)


def test_pictures_show_samples_and_stay_small(run, published):
    for name in ("samples.png", "interpolations.png"):
        assert (published / name).stat().st_size <= LARGEST_PICTURE
    samples = Image.open(published / "samples.png")
    assert samples.size == (8 * 66 - 2, 8 * 66 - 2)
    first = np.asarray(samples.convert("L"))[:64:2, :64:2] / 255
    image = run.generator("cpu").sample(64, seed=0)[0, 0].numpy()
    assert np.abs(first - image).max() < 0.5 / 255 + 1e-6


def test_a_picture_that_would_be_too_large_shows_fewer(tmp_path):
    noise = torch.randint(0, 256, (64, 3, 64, 64), dtype=torch.uint8)
    shown = []

    def draw(count):
        shown.append(count)
        return expost.examples.pictures.grid(noise[:count])

    save_fitting(draw, (64, 36, 16, 4, 1), tmp_path / "a.png")
    assert shown == [64, 36, 16]  # 16 * 64 * 64 * 3 bytes of noise, which PNG cannot compress, are the first below
    assert (tmp_path / "a.png").stat().st_size <= LARGEST_PICTURE
    assert Image.open(io.BytesIO((tmp_path / "a.png").read_bytes())).size == (4 * 66 - 2, 4 * 66 - 2)


def load_images(folder: Path) -> Generator:
    """Load a published model that is not one of strings."""
    loaded = from_pretrained(folder, device="cpu")
    assert isinstance(loaded, Generator)
    return loaded


def test_test_examples_are_shown_only_if_asked_for(run, published, tmp_path):
    assert not (published / "reconstructions.png").exists()
    folder = save_pretrained(run, tmp_path / "shown", show_data=True, densities=("gaussian",))
    picture = np.asarray(Image.open(folder / "reconstructions.png").convert("L"))
    assert np.array_equal(picture[:64:2, :64:2], run.data().test.x[0, 0].numpy())
    assert list(load_images(folder).densities) == ["gaussian"]
    assert not (folder / "densities" / "gmm.safetensors").exists()


def test_scores_of_other_weights_are_left_out(run, tmp_path):
    other = Run.open(shutil.copytree(run.folder, tmp_path / "run"))
    scores = read_json(other.folder / "metrics.json")
    scores["scores"][0]["card"]["model"] = "f" * 64
    write_json(other.folder / "metrics.json", scores)
    folder = save_pretrained(other, tmp_path / "out")
    assert len(read_json(folder / "metrics.json")["scores"]) == len(scores["scores"]) - 1


def test_strings_vectors_and_maps_are_shared_too(tmp_path):
    strings = make_run(tmp_path / "s", "grae", (15, 12), ("gaussian",), "expressions", GRAMMAR)
    folder = save_pretrained(strings, tmp_path / "strings", show_data=False)
    loaded = from_pretrained(folder, device="cpu")
    assert isinstance(loaded, StringGenerator)
    assert loaded.sample(20, seed=1) == strings.string_generator("cpu").sample(20, seed=1)
    assert "sampled from gaussian:" in (folder / "README.md").read_text()
    assert "cite Kusner" in (folder / "README.md").read_text()
    vectors = make_run(tmp_path / "v", "vae", (6,), ("standard-normal",), "rows.csv")
    folder = save_pretrained(vectors, tmp_path / "vectors")
    assert torch.equal(load_images(folder).sample(4, seed=1), vectors.generator("cpu").sample(4, seed=1))
    maps = make_run(tmp_path / "m", "vq-vae", (1, 32, 32), (), "mnist-5k")
    of_maps = load_images(save_pretrained(maps, tmp_path / "maps"))
    x = torch.rand(3, 1, 32, 32)
    assert torch.equal(of_maps.reconstruct(x), maps.generator("cpu").reconstruct(x))
    assert "No density is fitted" in (tmp_path / "maps" / "README.md").read_text()
    spectral = make_run(tmp_path / "n", "rae-sn", (1, 28, 28), ("gaussian",))
    normalized = load_images(save_pretrained(spectral, tmp_path / "spectral"))
    assert torch.equal(normalized.sample(3, seed=0), spectral.generator("cpu").sample(3, seed=0))


def test_pulling_a_folder_makes_a_run(published, run, tmp_path):
    pulled = pull(published, tmp_path / "run")
    assert torch.equal(pulled.generator("cpu").sample(3, seed=0), run.generator("cpu").sample(3, seed=0))
    assert expost.sample(pulled, 4, tmp_path / "s.npy").is_file()
    with pytest.raises(UsageError, match="exists already"):
        pull(published, tmp_path / "run")


def refused(folder, match):
    """Loading fails within seconds, in one line, without reading what it refuses."""
    begun = time.monotonic()
    with pytest.raises(DataError, match=match) as error:
        from_pretrained(folder, device="cpu")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700
    assert time.monotonic() - begun < 10


def tamper(folder, *path, value):
    config = read_json(folder / "config.json")
    part = config
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    write_json(folder / "config.json", config)


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (("model", "width"), 10**12, "width is 1,000,000,000,000"),
        (("model", "width"), 20_000, "asks for tensor 'encoder.layers.0.weight' of shape"),
        (("model", "width"), 5, "asks for tensor"),
        (("model", "width"), -1, "width"),
        (("model", "shape"), [1, 10**9, 10**9], "shape of an example"),
        (("model", "shape"), [], "shape|latent_dim"),
        (("model", "shape"), [3, 32, 32], "asks for tensor 'encoder.layers.0.weight'"),
        (("model", "latent_dim"), 3, "asks for tensor 'decoder.first.0.weight'"),
        (("model", "latent"), {"name": "gaussian", "options": {}}, "asks for tensor 'latent.log_sigma"),
        (("model", "latent"), {"name": "os.system", "options": {}}, "unknown latent 'os.system'"),
        (("model", "network"), "../../x", "unknown network"),
        (("model", "regularizer"), {"name": "spectral-norm", "options": {}}, "parametrizations|has none"),
        (
            ("model", "reconstruction"),
            {"name": "masked-categorical", "options": {"groups": list(range(9999))}},
            "9,999",
        ),
        (("model", "prior"), {"name": "pickle", "options": {}}, "unknown density 'pickle'"),
        (("format",), 99, "newer than this expost reads"),
        (("model", "evil"), 1, "evil"),
        (("own_networks",), True, "maker's own networks"),
        (("data", "codec"), {"name": "characters", "options": {"alphabet": ["a"], "length": 10**9}}, "codec and model"),
    ],
)
def test_hostile_configurations_are_refused_before_they_cost_anything(copy, path, value, match):
    tamper(copy, *path, value=value)
    refused(copy, match)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": NaN', "[" * 100_000, '"' + "x" * 9_000_000 + '"', "\x00"])
def test_what_is_no_configuration_is_refused(copy, text):
    (copy / "config.json").write_text(text)
    refused(copy, "config.json")


def test_records_that_are_nested_without_end_are_refused(copy):
    deep = "[" * 200_000 + "]" * 200_000
    for name in ("densities/fitted_on.json", "metrics.json"):
        before = (copy / name).read_text()
        (copy / name).write_text(deep)
        with pytest.raises(DataError, match="nested too deeply"):
            read_json(copy / name)
        if name == "densities/fitted_on.json":
            refused(copy, "nested too deeply")
        (copy / name).write_text(before)
    path = copy / "densities" / "gmm.safetensors"
    tensors, _ = read_tensors(path)
    path.write_bytes(safetensors.torch.save(tensors, metadata={"expost": deep}))
    refused(copy, "gmm")


def test_hostile_tensors_are_refused(copy):
    tensors, meta = read_tensors(copy / "model.safetensors")
    name = next(iter(tensors))
    write_tensors(copy / "model.safetensors", {**tensors, name: torch.full_like(tensors[name], torch.nan)}, meta)
    refused(copy, f"tensor '{name}' is not finite")
    write_tensors(copy / "model.safetensors", {**tensors, "extra": torch.zeros(2)}, meta)
    refused(copy, "tensor 'extra'")
    write_tensors(copy / "model.safetensors", {k: v for k, v in tensors.items() if k != name}, meta)
    refused(copy, f"asks for tensor '{name}'")
    content = (copy / "model.safetensors").read_bytes()
    for wrong in (content[:-10], b"", b"\x80\x04.", b"\xff" * 64, (2**62).to_bytes(8, "little") + b"{}"):
        (copy / "model.safetensors").write_bytes(wrong)
        refused(copy, "truncated or not safetensors")
    (copy / "model.safetensors").unlink()
    refused(copy, "has no model.safetensors")


def test_densities_of_another_model_are_refused_or_left_out(copy, tmp_path, capsys):
    other = make_run(tmp_path / "other", "rae", (6,), ("gaussian",))
    taken, place = other.folder / "densities" / "gaussian.safetensors", copy / "densities" / "gaussian.safetensors"
    shutil.copy(taken, place)
    assert list(load_images(copy).densities) == ["gmm"]  # its file names the weights that it is of
    assert "left out" in capsys.readouterr().err
    load_density(taken).of_weights(Run.open(copy).weights_hash()).save(place)
    refused(copy, "codes of 4 dimensions, the model's have 16")
    write_json(copy / "densities" / "fitted_on.json", {"gmm": Run.open(copy).weights_hash()})
    assert list(load_images(copy).densities) == ["gmm"]
    assert "left out" in capsys.readouterr().err
    (copy / "densities" / "gmm.safetensors").write_bytes(b"\x80\x04.")
    refused(copy, "truncated or not safetensors")


def test_files_that_are_not_known_are_never_opened(copy, run):
    for name in ("modeling.py", "pytorch_model.bin", "densities/x.pkl", "checkpoint.safetensors", "tokenizer.json"):
        (copy / name).write_bytes(b"\x80\x04cos\nsystem\n(S'false'\ntR.")
        (copy / name).chmod(0)
    assert torch.equal(load_images(copy).sample(2, seed=0), run.generator("cpu").sample(2, seed=0))


def test_wrong_requests(run, published, tmp_path):
    with pytest.raises(UsageError, match="no revision"):
        from_pretrained(published, revision="main")
    for source in (tmp_path / "none", str(tmp_path / "none"), "./none/x", "~/none-of/this"):
        with pytest.raises(UsageError, match="is no folder"):
            from_pretrained(source)
    for name in ("one", "a/b/c", "a/..", "../a", "a b/c", "a/b?x", "", "http://x/y", "a/b\n"):
        with pytest.raises(UsageError, match="user/name|is no folder"):
            from_pretrained(name, offline=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no expost model"):
        from_pretrained(tmp_path / "empty")
    with pytest.raises(UsageError, match="license 'My Own"):
        save_pretrained(run, tmp_path / "x", license="My Own: [licence]")
    with pytest.raises(UsageError, match="density 'kde' is not fitted"):
        save_pretrained(run, tmp_path / "x", densities=("kde",))
    with pytest.raises(UsageError, match="exists already"):
        save_pretrained(run, run.folder)
    with pytest.raises(UsageError, match="give dry_run too, or drop out"):
        push(run, "me/x", out=tmp_path / "dry")
    with pytest.raises(UsageError, match="write it as user/name"):
        push(run, "nobody")
    assert push(run, "me/x", dry_run=True, out=tmp_path / "dry") == str(tmp_path / "dry")
    assert "expost.from_pretrained('me/x')" in (tmp_path / "dry" / "README.md").read_text()
    assert not (tmp_path / "x").exists()


def test_own_networks_are_not_shared(tmp_path):
    networks = (torch.nn.Linear(6, 6), torch.nn.Linear(3, 6))
    np.save(tmp_path / "x.npy", torch.randn(60, 6).numpy())
    run = expost.train(
        "ae", tmp_path / "x.npy", tmp_path / "run", epochs=1, latent_dim=3, tensorboard=False, networks=networks
    )
    with pytest.raises(UsageError, match="never runs code from a download"):
        push(run, "me/own")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    script = Path(__file__).with_name("share_loopback.py")
    process = subprocess.run(
        [sys.executable, script, tmp_path_factory.mktemp("hub")],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


def test_pushing_goes_through_the_clients_own_upload(hub):
    assert hub["address"]
    assert hub["private"] in ("private", True)
    assert hub["same weights"]
    assert hub["files"] == [
        ".gitattributes", "README.md", "config.json", "densities/fitted_on.json", "densities/gaussian.safetensors",
        "densities/kde.safetensors", "interpolations.png", "model.safetensors", "samples.png",
    ]  # fmt: skip
    assert "expost.from_pretrained('me/first')" in hub["card"]
    assert yaml.safe_load(hub["card"].split("---")[1])["license"] == "mit"


def test_loading_from_the_hub_fetches_the_known_files_alone(hub):
    assert hub["loaded"]
    assert hub["fetched"] == [
        "config.json", "densities/fitted_on.json", "densities/gaussian.safetensors", "densities/kde.safetensors",
        "model.safetensors",
    ]  # fmt: skip
    assert hub["escaped"] == []


def test_a_second_push_replaces_the_first_which_stays_in_its_revision(hub):
    assert "densities/kde.safetensors" not in hub["files after"]
    assert {"modeling.py", "densities/gaussian.safetensors"} <= set(hub["files after"])  # others' files are theirs
    assert hub["still private"] == hub["private"]
    assert hub["old revision"] == ["gaussian", "kde"]
    assert hub["new revision"] == ["gaussian"]
    assert hub["pinned"] == ["gaussian", "kde"]
    assert hub["pinned twice"].startswith("UsageError: ")
    assert hub["source"]
    assert "1.1e+03 GB of files, more than 4.29" in hub["too large"]


def test_pull_and_the_mixin_give_the_same_model(hub):
    assert hub["pulled"]
    assert hub["files pulled"] == [
        "config.json",
        "densities/fitted_on.json",
        "densities/gaussian.safetensors",
        "model.safetensors",
        "source.json",
    ]
    assert hub["mixin"]
    assert hub["mixin pushed"]
    assert hub["second"]


def test_what_was_fetched_loads_without_the_hub(hub):
    assert hub["offline"]
    assert hub["hub down, cached"]


@pytest.mark.parametrize(
    ("case", "match"),
    [
        ("missing", "cannot fetch 'me/nothing': the Hub has no such repository, or it is private"),
        ("no such revision", "cannot fetch 'me/first': it has no such revision"),
        ("another library's", "holds no expost model: it has no config.json"),
        ("not allowed", "cannot push to 'me/first': .*401"),
        ("offline, not cached", "cannot fetch 'me/never': it is not in the local cache"),
        ("hub down", "cannot fetch 'me/never': it is not in the local cache, and the Hub cannot be reached"),
        ("push, hub down", "cannot push to 'me/first': "),
    ],
)
def test_failures_of_the_hub_are_one_line_that_says_what_to_do(hub, case, match):
    assert re.match(f"DataError: (.*{match})", hub[case])
    assert "\n" not in hub[case]
    assert "hf_" not in hub[case]  # no token
