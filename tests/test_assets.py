import hashlib
import io
import re
import shutil
import ssl
import subprocess
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from models import assets, downloads
from models.assets import (
    Asset,
    AssetFile,
    asset,
    asset_folder,
    fetch,
    fingerprint,
    import_from,
    is_present,
    list_assets,
    published_digits,
    verify,
)
from models.vocabulary import vocabulary
from pipeline.errors import PipelineError


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MARKERLESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def offline(monkeypatch):
    """No package index and no server answers."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")


def test_the_registry_says_what_each_file_is():
    for each in list_assets():
        assert each.licence and each.citation and each.description
        if not each.model:
            assert published_digits(each.name) == 64 and each.size_bytes > 0
        paths = [file.path for file in each.files]
        assert len(paths) == len(set(paths)) and not any(
            path.startswith(("/", "..")) for path in paths
        )
        if not each.wheel:
            assert all(file.source.startswith("https://") for file in each.files)


def test_fetched_files_are_the_registered_ones():
    folder = asset_folder("augmenter-v0.3")
    assert (folder / "lower" / "model.onnx").stat().st_size == 2080428
    verify("augmenter-v0.3")


@pytest.mark.parametrize("name", ["blazepose-full", "opensim-lai-uhlrich-2022", "rtmdet-m"])
def test_offline_with_nothing_cached_says_what_to_do(name, empty_cache, monkeypatch):
    offline(monkeypatch)
    with pytest.raises(PipelineError, match=f"pipeline models import {name}"):
        asset_folder(name)
    assert not is_present(name)


def test_a_damaged_file_is_noticed(empty_cache, monkeypatch):
    name = "blazepose-detector"
    source = _cached(name, monkeypatch, empty_cache)
    folder = import_from(name, source)
    verify(name)
    (folder / "pose_detection.tflite").write_bytes(b"broken")
    with pytest.raises(PipelineError, match="not the registered file"):
        verify(name)


def test_files_are_imported_by_content_from_a_folder_or_a_wheel(empty_cache, tmp_path, monkeypatch):
    name = "augmenter-v0.3"
    source = _cached(name, monkeypatch, empty_cache)
    renamed = tmp_path / "usb-stick"
    renamed.mkdir()
    for index, file in enumerate(asset(name).files):
        shutil.copy(source / file.path, renamed / f"{index}.bin")
    import_from(name, renamed)
    verify(name)
    shutil.rmtree(empty_cache)
    wheel = tmp_path / "pose2sim.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for index, file in enumerate(asset(name).files):
            archive.write(renamed / f"{index}.bin", file.source)
    import_from(name, wheel)
    verify(name)


def test_other_files_are_not_taken(empty_cache, tmp_path):
    (tmp_path / "pose_detection.tflite").write_bytes(b"something else")
    with pytest.raises(PipelineError, match="does not hold pose_detection.tflite"):
        import_from("blazepose-detector", tmp_path)
    with zipfile.ZipFile(tmp_path / "wrong.whl", "w") as archive:
        archive.writestr(
            "mediapipe/modules/pose_detection/pose_detection.tflite", b"something else"
        )
    with pytest.raises(PipelineError, match="not the registered file"):
        import_from("blazepose-detector", tmp_path / "wrong.whl")
    (tmp_path / "cut.whl").write_bytes((tmp_path / "wrong.whl").read_bytes()[:40])
    with pytest.raises(PipelineError, match="not the wheel"):
        import_from("blazepose-detector", tmp_path / "cut.whl")
    assert not is_present("blazepose-detector")


WEIGHTS = bytes(range(256)) * 40
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


def zipped(**files):
    """An archive with the files (name without .onnx, content) in a folder of it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("20230831/network/detail.json", "{}")
        for name, content in files.items():
            archive.writestr(f"20230831/network/{name}.onnx", content)
    return packed.getvalue()


class Server:
    """Answers one address over TLS with `content`; `cut` bytes are announced, but not sent."""

    def __init__(self, folder):
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
             "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        self.certificate, self.content, self.cut, self.redirect = certificate, b"", 0, ""
        answering = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                moved = answering.redirect and self.server is answering.server
                self.send_response(302 if moved else 200)
                if moved:
                    self.send_header("Location", answering.redirect)
                self.send_header("Content-Length", str(len(answering.content) + answering.cut))
                self.end_headers()
                self.wfile.write(answering.content)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("localhost", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.address = f"https://localhost:{self.server.server_port}/network.zip"
        self.plain = ThreadingHTTPServer(("localhost", 0), Handler)
        for each in (self.server, self.plain):
            threading.Thread(target=each.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("needs the program openssl, to make a certificate")
    server = Server(tmp_path_factory.mktemp("tls"))
    yield server
    for each in (server.server, server.plain):
        each.shutdown()


@pytest.fixture
def server(tls, empty_cache, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.certificate))
    monkeypatch.setenv("no_proxy", "localhost")
    tls.content, tls.cut, tls.redirect = zipped(end2end=WEIGHTS), 0, ""
    return tls


@pytest.fixture
def network(server, monkeypatch):
    """Registers an asset: a file in the archive at the server's address. Returns its name."""

    def register(sha256="", address=server.address):
        file = AssetFile(path="n.onnx", source=address, member="end2end.onnx", sha256=sha256)
        facts = {"description": "a network", "licence": "MIT", "citation": "nobody, 2026"}
        entry = Asset(name="network", optional=True, files=(file,), **facts)
        monkeypatch.setattr(assets, "_registry", lambda: ({"network": entry}, {}))
        return "network"

    return register


def cached_files(folder):
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


@pytest.mark.parametrize("digits", [64, 8, 0])
def test_a_file_is_fetched_out_of_an_archive(server, network, digits):
    name = network(SHA256[:digits])
    assert (fetch(name) / "n.onnx").read_bytes() == WEIGHTS
    assert is_present(name) and published_digits(name) == digits
    verify(name)
    (asset_folder(name) / "n.onnx").write_bytes(WEIGHTS[1:])
    with pytest.raises(PipelineError, match="pipeline models fetch network"):
        verify(name)
    fetch(name)
    verify(name)


@pytest.mark.parametrize("digits", [64, 8])
def test_another_file_than_the_published_hash_says_is_refused(server, network, digits, empty_cache):
    server.content = zipped(end2end=WEIGHTS[1:])
    with pytest.raises(PipelineError, match="not the registered file"):
        fetch(network(SHA256[:digits]))
    assert not cached_files(empty_cache)


def test_a_file_without_published_hash_stays_what_it_was_at_first(server, network):
    name = network()
    folder = fetch(name)
    before = fingerprint(name)
    server.content = zipped(end2end=WEIGHTS[1:])
    with pytest.raises(
        PipelineError, match="replaced by its publisher.*remove " + re.escape(str(folder))
    ):
        fetch(name)
    verify(name)
    assert fingerprint(name) == before
    shutil.rmtree(folder)
    assert not is_present(name)
    fetch(name)
    assert fingerprint(name) != before


@pytest.mark.parametrize(
    "content, cut, message",
    [
        (zipped(end2end=WEIGHTS), 10, r"cannot be fetched \(cut short: \d+ of \d+ bytes\)"),
        (zipped(end2end=WEIGHTS)[:-40], 0, "damaged, or not a zip archive"),
        (b"<html>not found</html>", 0, "damaged, or not a zip archive"),
        (zipped(other=WEIGHTS), 0, "has no files 'end2end.onnx'"),
        (zipped(**{"end2end": WEIGHTS, "twice/end2end": WEIGHTS}), 0, "has 2 files"),
        (zipped(end2end=WEIGHTS).replace(WEIGHTS[:99], WEIGHTS[1:100], 1), 0, "damaged"),
    ],
)
def test_a_download_that_goes_wrong_leaves_nothing(
    server, network, empty_cache, content, cut, message
):
    server.content, server.cut = content, cut
    with pytest.raises(PipelineError, match=message):
        fetch(network())
    assert not cached_files(empty_cache)


@pytest.mark.parametrize("at", range(60, 160, 7))
def test_a_damaged_archive_is_told_wherever_the_damage_is(tmp_path, at):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("network", bytes(range(256)) * 8)
    content = bytearray(archive.read_bytes())
    content[at : at + 8] = b"\xff" * 8
    archive.write_bytes(content)
    with pytest.raises(PipelineError, match="damaged, or not a zip archive"):
        downloads.take_member(archive, "network", tmp_path / "network")
    assert not (tmp_path / "network").exists()


def test_an_archive_cannot_write_elsewhere(server, network, empty_cache, tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../../../../end2end.onnx", WEIGHTS)
    server.content = (tmp_path / "evil.zip").read_bytes()
    folder = fetch(network())
    assert sorted(cached_files(empty_cache)) == [folder / "n.onnx", folder / "n.onnx.sha256"]
    assert not [path for path in tmp_path.parent.rglob("end2end.onnx")]


def test_what_claims_to_be_huge_is_not_kept(server, network, empty_cache, monkeypatch):
    name = network()
    monkeypatch.setattr(downloads, "LIMIT_BYTES", len(WEIGHTS) - 1)
    with pytest.raises(PipelineError, match="larger than"):
        fetch(name)
    assert not cached_files(empty_cache)


def test_only_https_is_fetched(server, network, empty_cache):
    with pytest.raises(PipelineError, match="is not an https address"):
        fetch(network(address="http://localhost/network.zip"))
    server.redirect = f"http://localhost:{server.plain.server_port}/network.zip"
    with pytest.raises(PipelineError, match=f"leads to {server.redirect}, which is no https"):
        fetch(network())
    assert not cached_files(empty_cache)


@pytest.mark.parametrize("digits", [64, 8, 0])
def test_archives_and_files_are_imported(network, tmp_path, empty_cache, digits):
    name = network(SHA256[:digits])
    (tmp_path / "network.zip").write_bytes(zipped(end2end=WEIGHTS))
    (tmp_path / "network.onnx").write_bytes(WEIGHTS)
    for source in ("network.zip", "network.onnx"):
        assert (import_from(name, tmp_path / source) / "n.onnx").read_bytes() == WEIGHTS
        verify(name)
        shutil.rmtree(empty_cache)
    shutil.copy(tmp_path / "network.zip", tmp_path / "renamed.zip")
    if digits:
        import_from(name, tmp_path / "renamed.zip")
    else:  # it could be any model's
        with pytest.raises(PipelineError, match="does not hold n.onnx of network"):
            import_from(name, tmp_path / "renamed.zip")
    (tmp_path / "readme.txt").write_text("not a network")
    with pytest.raises(PipelineError, match="does not hold n.onnx of network"):
        import_from(name, tmp_path / "readme.txt")


def test_unknown_names_list_the_known_ones():
    with pytest.raises(PipelineError, match="blazepose-full"):
        fetch("openpose")
    with pytest.raises(PipelineError, match="blazepose-33"):
        vocabulary("coco")


def test_vocabularies_are_consistent():
    names = vocabulary("blazepose-33")
    assert len(names.keypoints) == len(set(names.keypoints)) == 33
    assert {name for bone in names.bones for name in bone} <= set(names.keypoints)
    for name in names.keypoints:
        if name[0] in "LR" and name[1].isupper():
            assert {"L": "R", "R": "L"}[name[0]] + name[1:] in names.keypoints


def _cached(name, monkeypatch, empty_cache):
    """The asset's folder in the user's real cache."""
    monkeypatch.delenv("MARKERLESS_CACHE")
    folder = assets.asset_folder(name)
    monkeypatch.setenv("MARKERLESS_CACHE", str(empty_cache))
    return folder
