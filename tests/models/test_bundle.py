"""A bundle is what it was signed to be, or it is refused."""

import hashlib
import json
import os
import random
import shutil

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wenfang.core.errors import Broken, NotFound
from wenfang.core.examples import Examples
from wenfang.models import families
from wenfang.models.bundle import open_bundle, verify_bundle, write_bundle

TRAIN = Examples("classification", ["今天天气好", "明天天气差", "股市大涨", "股市大跌"] * 3, ["天气", "天气", "财经", "财经"] * 3)


class Key:
    """A signer and a verifier that trusts only itself."""

    def __init__(self):
        self.private = Ed25519PrivateKey.generate()

    def sign(self, data):
        return self.private.sign(data)

    def key_id(self):
        return hashlib.sha256(self.private.public_key().public_bytes_raw()).hexdigest()[:16]

    def verify(self, data, signature, key_id):
        if key_id != self.key_id():
            raise Broken("signature.unknown-signer", key_id=key_id)
        try:
            self.private.public_key().verify(signature, data)
        except InvalidSignature as e:
            raise Broken("signature.bad", key_id=key_id) from e


KEY = Key()


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    model = families.get("linear")(task="classification", seed=7).fit(TRAIN)
    folder = tmp_path_factory.mktemp("bundle") / "b"
    return write_bundle(folder, model, signer=KEY, card={"用途": "test"}, lineage={"dataset_version": "dv_1"}), model


@pytest.fixture
def copy(signed, tmp_path):
    return shutil.copytree(signed[0].folder, tmp_path / "copy")


def resign(folder, change):
    """What an owner of the key could have signed by mistake or malice."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    change(manifest)
    data = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(data)
    (folder / "manifest.sig").write_text(json.dumps({"key_id": KEY.key_id(), "signature": KEY.sign(data).hex()}))


def code_of(folder, verifier=KEY):
    with pytest.raises((Broken, NotFound)) as e:
        open_bundle(folder, verifier=verifier)
    assert e.value.detail("zh")
    return e.value.code


def test_opens_as_the_model_that_was_saved(signed, copy):
    info, model = signed
    manifest, opened = open_bundle(copy, verifier=KEY)
    assert manifest == info.manifest
    assert info.hash == hashlib.sha256((copy / "manifest.json").read_bytes()).hexdigest()
    assert (manifest.family, manifest.task, manifest.seed, opened.seed) == ("linear", "classification", 7, 7)
    assert manifest.labels == ["天气", "财经"] or manifest.labels == sorted(manifest.labels)
    assert manifest.signature["inputs"][0]["datatype"] == "BYTES"
    assert info.size_bytes == sum(f.size_bytes for f in manifest.files.values())
    assert opened.predict(TRAIN.texts, top_k=2) == model.predict(TRAIN.texts, top_k=2)


def test_a_flipped_byte_anywhere_is_refused(signed, tmp_path):
    for file in sorted(signed[0].folder.iterdir()):
        data = file.read_bytes()
        for at in sorted({0, 1, len(data) // 3, len(data) // 2, len(data) - 2, len(data) - 1}):
            folder = shutil.copytree(signed[0].folder, tmp_path / f"{file.name}-{at}")
            (folder / file.name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            assert code_of(folder).split(".")[0] in {"bundle", "signature"}, (file.name, at)


def test_flipped_bits_at_random_places_of_every_file_are_refused_before_anything_is_loaded(signed, copy):
    rng = random.Random(20_261)
    for file in sorted(copy.iterdir()):
        data = file.read_bytes()
        for _ in range(60):
            at, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
            file.write_bytes(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
            with pytest.raises(Broken) as e:
                verify_bundle(copy, verifier=KEY)
            assert e.value.code.split(".")[0] in {"bundle", "signature"}, (file.name, at, bit)
        file.write_bytes(data)
    assert verify_bundle(copy, verifier=KEY).family == "linear"


def test_every_byte_of_the_manifest_counts(signed, copy):
    data = (copy / "manifest.json").read_bytes()
    for at in range(len(data)):
        (copy / "manifest.json").write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        assert code_of(copy) == "signature.bad"


def test_another_installation_is_not_trusted(copy):
    assert code_of(copy, Key()) == "signature.unknown-signer"


def test_files_more_less_or_linked_are_refused(signed, copy, tmp_path):
    (copy / "extra.json").write_text("{}")
    assert code_of(copy) == "bundle.unlisted-file"
    (copy / "extra.json").unlink()
    weights = copy / "dense.safetensors"
    weights.rename(tmp_path / "elsewhere")
    assert code_of(copy) == "bundle.missing-file"
    weights.symlink_to(tmp_path / "elsewhere")
    assert code_of(copy) == "bundle.unlisted-file"
    weights.unlink()
    os.mkfifo(weights)
    assert code_of(copy) == "bundle.missing-file"
    weights.unlink()
    shutil.copy(tmp_path / "elsewhere", weights)
    assert verify_bundle(copy, verifier=KEY).family == "linear"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert code_of(copy) == "bundle.damaged"
    (copy / "manifest.sig").write_text("[]")
    assert code_of(copy) == "bundle.bad-signature-file"
    (copy / "manifest.sig").unlink()
    assert code_of(copy) == "bundle.missing-file"


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../b", "manifest.json", "a\\b", "./dense.safetensors"])
def test_names_that_leave_the_folder_are_refused(copy, name):
    resign(copy, lambda m: m["files"].update({name: m["files"]["dense.safetensors"]}))
    assert code_of(copy) == "bundle.bad-manifest"


def test_other_formats_and_unknown_hyper_parameters_are_refused(signed, tmp_path):
    changes = {
        "format": lambda m: m.update(format=2),
        "more": lambda m: m.update(more=1),
        "hyper": lambda m: m["hyper"].update(ngram_max=0),
        "family": lambda m: m.update(family="quantum"),
    }
    for name, change in changes.items():
        folder = shutil.copytree(signed[0].folder, tmp_path / name)
        resign(folder, change)
        assert code_of(folder) == ("plugin.unknown" if name == "family" else "bundle.bad-manifest")


def test_a_header_that_claims_too_much_is_refused_before_it_is_read(copy):
    data = (1 << 40).to_bytes(8, "little") + b"{}"
    (copy / "dense.safetensors").write_bytes(data)
    resign(copy, lambda m: m["files"].update({"dense.safetensors": {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}}))
    assert code_of(copy) == "bundle.bad-header"


def test_weights_of_another_shape_are_refused(copy):
    resign(copy, lambda m: m.update(labels=[*m["labels"], "more"]))
    assert code_of(copy) == "model.damaged"


def test_a_folder_in_use_is_not_overwritten(signed):
    info, model = signed
    with pytest.raises(Broken, match=r"bundle\.folder-not-empty"):
        write_bundle(info.folder, model, signer=KEY, card={}, lineage={})
