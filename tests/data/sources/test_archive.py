import gzip
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from kth_lightning.data.sources.archive import download, unpack
from kth_lightning.errors import InputError

CONTENT = np.random.default_rng(0).bytes(300_000)


class _Handler(BaseHTTPRequestHandler):
    """Serve CONTENT with ranges; /broken stops after 100,000 bytes of the whole, /plain knows no ranges."""

    ranges: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        start = 0
        if asked and self.path != "/plain":
            self.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(CONTENT):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : 100_000 if self.path == "/broken" else None])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    _Handler.ranges.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_a_broken_download_is_kept_and_resumed(server: str, tmp_path: Path) -> None:
    file = tmp_path / "a.tar.gz"
    with pytest.raises(InputError, match="broke off after 100,000 of 300,000 bytes; run the same command again"):
        download(f"{server}/broken", file)
    assert not file.exists()
    download(f"{server}/whole", file)
    assert file.read_bytes() == CONTENT
    assert _Handler.ranges == ["bytes=100000-"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar.gz"]


@pytest.mark.parametrize(("path", "kept"), [("plain", 5_000), ("whole", 300_000), ("whole", 300_001)])
def test_a_part_that_cannot_be_resumed_is_fetched_anew(server: str, tmp_path: Path, path: str, kept: int) -> None:
    (tmp_path / "a.part").write_bytes(b"x" * kept)
    download(f"{server}/{path}", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_an_address_that_does_not_answer_names_the_flag(server: str, tmp_path: Path) -> None:
    for url in (f"{server}/missing", "http://127.0.0.1:9/a.tar.gz", "http://"):
        with pytest.raises(InputError, match=r"--data\.archive: cannot download"):
            download(url, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def _tar(file: Path, members: list[tarfile.TarInfo], mode: str = "w:gz") -> Path:
    with tarfile.open(file, mode) as tar:  # type: ignore[call-overload]
        for member in members:
            tar.addfile(member, io.BytesIO(CONTENT[: member.size]))
    return file


def _member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = size, kind, link
    return member


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_regular_files_are_unpacked(tmp_path: Path, mode: str) -> None:
    archive = _tar(tmp_path / "a", [_member("top", kind=tarfile.DIRTYPE), _member("./top/deep/ü b.jpg", 1000)], mode)
    out = tmp_path / "out"
    out.mkdir()
    unpack(archive, out)
    assert (out / "top/deep/ü b.jpg").read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize(
    "member",
    [
        _member("/absolute.jpg", 5),
        _member("top/../../outside.jpg", 5),
        _member("soft", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        _member("hard", kind=tarfile.LNKTYPE, link="top/a"),
        _member("device", kind=tarfile.CHRTYPE),
        _member("pipe", kind=tarfile.FIFOTYPE),
    ],
    ids=lambda member: member.name,
)
def test_members_that_could_leave_the_folder_are_refused_by_name(tmp_path: Path, member: tarfile.TarInfo) -> None:
    out = tmp_path / "in" / "out"
    out.mkdir(parents=True)
    with pytest.raises(InputError, match=f"holds '{member.name}', which is not a regular file"):
        unpack(_tar(tmp_path / "a.tar.gz", [member]), out)
    assert list(out.iterdir()) == []
    assert list((tmp_path / "in").iterdir()) == [out]


def test_broken_archives_are_one_sentence(tmp_path: Path) -> None:
    whole = _tar(tmp_path / "whole.tar.gz", [_member("a", 200_000)]).read_bytes()
    bad_checksum = whole[:-8] + bytes(4) + whole[-4:]
    plain = _tar(tmp_path / "plain.tar", [_member("a", 200_000)], "w").read_bytes()
    no_tar = b"<html>not found</html>", gzip.compress(b"no"), b""
    for content in (whole[:100_000], bad_checksum, plain[:100_000], *no_tar):
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(InputError, match="is damaged, incomplete or not a tar archive; download it again"):
            unpack(tmp_path / "broken", tmp_path)


def test_a_folder_or_nothing_in_place_of_the_archive_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder; name the \.tar\.gz file"):
        unpack(tmp_path, tmp_path)
    with pytest.raises(InputError, match="there is no file"):
        unpack(tmp_path / "nothing.tar.gz", tmp_path)


def test_an_archive_of_absurd_size_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    huge = _member("huge", 60_000_000_000)
    (tmp_path / "huge.tar").write_bytes(huge.tobuf() + bytes(1024))
    with pytest.raises(InputError, match="more than 20,000 files or 1 GB"):
        unpack(tmp_path / "huge.tar", tmp_path)
    assert not (tmp_path / "huge").exists()


def test_a_disk_that_takes_no_more_is_not_blamed_on_the_archive(tmp_path: Path) -> None:
    _tar(tmp_path / "a.tar.gz", [_member("big", 200_000)])
    code = f"""
import resource
from pathlib import Path
from kth_lightning.data.sources.archive import unpack
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    unpack(Path({str(tmp_path / "a.tar.gz")!r}), Path({str(tmp_path)!r}))
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "File too large\n", done.stderr
