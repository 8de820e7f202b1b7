"""Damaged, foreign, read-only or half-written files: named, nothing lost, no wrong number."""

import json
import os
import random
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ledger import injecting
from tiny_demo import copy_of, damaged, digests, finished_demo, run

from steering_core.activations.manifest import write_manifest
from steering_core.activations.reader import ActivationCache
from steering_core.errors import ModelError, StorageError
from steering_core.models.resources import pinned_model
from steering_core.models.sae_source import pinned_sae
from steering_core.storage.files import read_json
from steering_core.storage.integrity import check_seal, content_digest, seal_of

DEMO = Path("results/demo")


def flip_bit(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at // 8 % len(content)] ^= 1 << at % 8
    path.write_bytes(content)


def sealed(directory: Path) -> list[Path]:
    """Everything in the results that carries a seal; Snakemake removes temporary files alone."""
    seals = directory.rglob(".*.sha256")
    paths = (seal.with_name(seal.name[1:].removesuffix(".sha256")) for seal in seals)
    return sorted(path for path in paths if path.exists())


def test_every_output_of_every_stage_is_sealed():
    directory = finished_demo() / "results"
    assert {path.relative_to(directory).parts[0] for path in sealed(directory)} == {
        *("demo", "models", "tiny_praise")
    }
    loose = {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file()
        and not path.name.startswith(".")
        and not {"logs", "benchmarks"} & set(path.relative_to(directory).parts)
        and not any(path == thing or thing in path.parents for thing in sealed(directory))
    }
    assert loose == set()


@pytest.mark.parametrize("fault", ["bit flipped", "truncated"])
def test_damage_to_any_file_is_named(tmp_path, fault):
    """Every file that a stage reads, several times at random places, headers included."""
    directory = copy_of(finished_demo(), tmp_path / "demo")
    chance = random.Random(7)
    with injecting(f"a file is {fault}", kept=directory / "results") as tally:
        tally.injected = tally.survived = 0
        for path in sealed(directory):
            files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
            files = [f for f in files if f.stat().st_size and f.name != ".snakemake_timestamp"]
            for file in files:
                original = file.read_bytes()
                for _ in range(8):
                    tally.injected += 1
                    if fault == "truncated":
                        file.write_bytes(original[: chance.randrange(len(original))])
                    else:
                        flip_bit(file, chance.randrange(8 * len(original)))
                    with pytest.raises(StorageError, match=path.name):
                        check_seal(path)
                    tally.survived += 1
                    file.write_bytes(original)
            assert check_seal(path)
        assert tally.injected > 100


def test_a_damaged_shard_stops_the_run_and_is_made_again(tmp_path):
    directory = copy_of(finished_demo(), tmp_path / "demo", ("features.parquet",))
    part = directory / DEMO / "activations/part-0.parquet"
    target = f"{DEMO}/features.parquet"
    with injecting("a damaged shard in a run", kept=directory / "results"):
        times = part.stat()
        flip_bit(part, 8 * (part.stat().st_size // 2))
        os.utime(part, ns=(times.st_atime_ns, times.st_mtime_ns))  # as bad disks do it
        done = run(directory, target, forked=True)
        assert done.returncode != 0
        log = (directory / DEMO / "logs/encode_features.log").read_text()
        assert "part-0.parquet" in log and "delete it and manifest.json" in log
        assert "Traceback" not in log
        assert not (directory / target).exists()
        other = directory / DEMO / "activations/part-1.parquet"
        whole = other.stat()
        part.unlink()  # as the message says
        (directory / DEMO / "activations/manifest.json").unlink()
        done = run(directory, target)
        assert done.returncode == 0, done.stderr[-3000:]
        assert (other.stat().st_ino, other.stat().st_mtime_ns) == (whole.st_ino, whole.st_mtime_ns)
    assert damaged(directory) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda r: r["model"].update(revision="0" * 40), "model.revision"),
        (lambda r: r["model"].update(dtype="bfloat16"), "model.dtype"),
        (lambda r: r["saes"][0].update(name="another"), "sites.0.name"),
        (lambda r: r.update(sae_revision="1" * 40), "sae_revision"),
        (lambda r: r["saes"].append(r["saes"][0]), "sites"),
    ],
)
def test_a_cache_of_something_else_is_refused(change, named):
    demo = finished_demo() / DEMO
    resources = read_json(demo / "resources.json")
    ActivationCache(demo / "activations/manifest.json", resources)
    change(resources)
    told = rf"manifest.json was made from something else: {named}"
    with injecting(f"a cache of another {named}", kept=demo):
        with pytest.raises(StorageError, match=told):
            ActivationCache(demo / "activations/manifest.json", resources)


def test_parts_with_two_versions_of_a_library_are_refused(tmp_path):
    demo = copy_of(finished_demo(), tmp_path / "demo") / DEMO
    parts = [demo / f"activations/part-{shard}.parquet" for shard in (0, 1)]
    table = pq.read_table(parts[1])
    header = json.loads(table.schema.metadata[b"steering_core"])
    header["versions"]["torch"] = "0.1"  # as if it had been upgraded before the other part
    pq.write_table(table.replace_schema_metadata({"steering_core": json.dumps(header)}), parts[1])
    with injecting("parts of a cache with two versions of torch", kept=demo):
        with pytest.raises(StorageError, match=r"part-1.* torch is '0.1'"):
            write_manifest(parts, demo / "activations/manifest.json", len(table))


def test_a_manifest_cannot_point_elsewhere(tmp_path):
    demo = copy_of(finished_demo(), tmp_path / "demo") / DEMO
    manifest = demo / "activations/manifest.json"
    text = manifest.read_text().replace("part-0.parquet", "../../outside/part-0.parquet")
    manifest.write_text(text)
    (demo.parent / "outside").mkdir()
    (demo / "activations/part-0.parquet").rename(demo.parent / "outside/part-0.parquet")
    cache = ActivationCache(manifest)
    with pytest.raises(StorageError, match=r"activations/part-0.parquet is damaged or missing"):
        list(cache.batches(cache.sites[0]))


def test_local_models_and_saes_are_those_that_were_fetched(tmp_path, monkeypatch):
    from steering_core.config.model import Model, SAESource

    directory = copy_of(finished_demo(), tmp_path / "demo")
    monkeypatch.chdir(directory)
    resources = read_json(DEMO / "resources.json")
    saes = Path("results/models/demo/sparse_autoencoders")
    sae = SAESource(path=f"{saes}/layer_{{layer}}")
    model = Model(id=f"{DEMO}/language_model", sae=sae)
    assert pinned_model(model, resources).revision == resources["model"]["revision"]
    assert pinned_sae(model, resources) == sae
    flip_bit(DEMO / "language_model/model.safetensors", 8 * 5000)
    with pytest.raises(ModelError, match="language_model is not what the fetch stage saw"):
        pinned_model(model, resources)
    flip_bit(next(saes.rglob("*.safetensors")), 8 * 5000)
    with pytest.raises(ModelError, match="is not what the fetch stage saw"):
        pinned_sae(model, resources)


@contextmanager
def mounted(where: Path, *options: str):
    """A tmpfs, or skip where mounting is not permitted."""
    where.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(where)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


def test_a_full_disk(tmp_path):
    """The disk fills up while a stage writes; after making room the same command goes on."""
    directory = copy_of(finished_demo(), tmp_path / "demo", ("activations", "features.parquet"))
    target = f"{DEMO}/activations/manifest.json"
    kept = tmp_path / "kept"
    shutil.move(directory / "results", kept)
    size = sum(f.stat().st_size + 8192 for f in kept.rglob("*") if f.is_file())
    with mounted(directory / "results", "-o", f"size={(size + 400_000) // 1024}k"):
        shutil.copytree(kept, directory / "results", symlinks=True, dirs_exist_ok=True)
        with injecting("full disk", kept=directory / "results"):
            ballast = directory / "results" / "ballast"
            free = shutil.disk_usage(ballast.parent).free
            part = (finished_demo() / DEMO / "activations/part-0.parquet").stat().st_size
            ballast.write_bytes(b"\0" * max(0, free - part // 2))
            before = digests(directory)
            done = run(directory, target, forked=True)
            assert done.returncode != 0
            logs = (directory / DEMO / "logs").glob("cache_activations-*.log")
            told = "".join(log.read_text() for log in logs) + done.stdout + done.stderr
            assert "No space left" in told or "is full" in told
            after = digests(directory)
            assert {name: after.get(name) for name in before} == before
            assert not list((directory / DEMO / "activations").glob("part-*.parquet"))
            ballast.unlink()
            subprocess.run(
                ["mount", "-o", "remount,size=200m", str(directory / "results")], check=True
            )
            run(directory, "--unlock", forked=True)
            done = run(directory, target)
            assert done.returncode == 0, done.stderr[-3000:]
            found, expected = digests(directory), digests(finished_demo())
            parts = [name for name in expected if "activations" in name]
            assert parts and all(found[name] == expected[name] for name in parts)


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        (("features.parquet", "decoder.safetensors"), "Read-only file system"),
        (("features.parquet",), "Write-protected output"),
    ],
)
def test_a_read_only_results_directory(tmp_path, missing, told):
    directory = copy_of(finished_demo(), tmp_path / "demo", missing)
    kept = tmp_path / "kept"
    shutil.move(directory / "results", kept)
    with mounted(directory / "results"):
        shutil.copytree(kept, directory / "results", symlinks=True, dirs_exist_ok=True)
        with injecting("read-only results directory", told, kept=directory / "results"):
            subprocess.run(["mount", "-o", "remount,ro", str(directory / "results")], check=True)
            done = run(directory, f"{DEMO}/features.parquet", forked=True)
            assert done.returncode != 0
            assert told in done.stdout + done.stderr
            assert "results" in done.stdout + done.stderr


def test_a_seal_of_something_missing(tmp_path):
    path = tmp_path / "file"
    assert not check_seal(path)  # neither the file nor a seal: not ours
    seal_of(path).write_text("0" * 64)
    with pytest.raises(StorageError, match="does not exist"):
        check_seal(path)
    path.write_bytes(b"")
    seal_of(path).write_bytes(b"\xff\x00")
    with pytest.raises(StorageError, match="is not what its stage wrote"):
        check_seal(path)
    assert content_digest(path).startswith("e3b0c442")
