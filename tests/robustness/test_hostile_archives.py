import bz2
import gzip
import io
import lzma
import os
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from corpus import encoded, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from kth_lightning.cli.main import main
from kth_lightning.data.sources.archive import unpack
from kth_lightning.errors import InputError

Refused = Callable[..., str]
TOP = "animal_database"


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", **pax: str) -> bytes:
    """Give a member's header and content as they stand in a tar file."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.pax_headers = len(content), kind, link, pax
    return info.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512)


def declared(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Give the header alone of a member that claims a size."""
    info = tarfile.TarInfo("claims")
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def kth() -> bytes:
    """Give a small archive that is like KTH-ANIMALS, uncompressed."""
    files = [
        (f"{TOP}/{name}/original/{number}.png", 10 * len(name) + number)
        for name in ("cat", "horse")
        for number in (1, 2)
    ]
    return b"".join(member(name, encoded("png", seed)) for name, seed in files) + bytes(1024)


def zeros(size: int) -> bytes:
    """Give so many zeros as gzip files that follow each other, which are read as one."""
    return gzip.compress(bytes(1 << 26)) * (size >> 26)


def flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]


def tell(refusal: Refused, folder: Path, content: bytes | None, name: str = "animal_database.tar.gz") -> str:
    """Have an archive refusal, and check that nothing was written but below the cache, where nothing is left."""
    archive = folder / "in" / name
    archive.parent.mkdir(exist_ok=True)
    if content is not None:
        archive.write_bytes(content)
    (folder / "in/mine.txt").write_text("mine")
    kept = snapshot(folder)
    line = refusal("prepare", "--data.archive", archive, "--data.cache_dir", folder / "cache")
    left = {path: digest for path, digest in snapshot(folder).items() if not path.endswith(".lock")}
    assert left == kept
    assert line.startswith(f"error: --data.archive: {archive} ") or f"no file {archive}" in line
    return line


ESCAPED = Path(tempfile.gettempdir()) / "kth-lightning-escaped.txt"
ESCAPES = {
    "parent": member("../mine.txt", b"x"),
    "parent inside": member(f"{TOP}/../../mine.txt", b"x"),
    "absolute": member(str(ESCAPED), b"x"),
    "absolute by pax": member("harmless", b"x", path=str(ESCAPED)),
    "soft link": member("a", kind=tarfile.SYMTYPE, link="/etc/passwd"),
    "hard link": member("a", kind=tarfile.LNKTYPE, link="../in/mine.txt"),
    "link to a folder and through it": member("a", kind=tarfile.SYMTYPE, link="..") + member("a/mine.txt", b"x"),
    "character device": member("a", kind=tarfile.CHRTYPE),
    "block device": member("a", kind=tarfile.BLKTYPE),
    "pipe": member("a", kind=tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("content", ESCAPES.values(), ids=ESCAPES)
def test_what_could_leave_the_folder_is_refused_by_name(refusal: Refused, tmp_path: Path, content: bytes) -> None:
    line = tell(refusal, tmp_path, gzip.compress(kth()[:-1024] + content + bytes(1024)))
    assert "which is not a regular file inside the archive's own folder; nothing was unpacked" in line
    assert not ESCAPED.exists()


def test_an_escape_is_refused_with_nothing_unpacked_before_it(refusal: Refused, tmp_path: Path) -> None:
    tell(refusal, tmp_path, gzip.compress(kth()[:-1024] + ESCAPES["parent"] + bytes(1024)))
    assert not [path for path in (tmp_path / "cache/archives").iterdir() if path.suffix != ".lock"]


BOMBS = {
    "one file of 60 GB": lambda: declared(60_000_000_000),
    "two million entries": lambda: gzip.compress(member("a") * 2000, 1) * 1000,
    "one file of 2 GB of zeros": lambda: gzip.compress(kth()[:-1024] + declared(2 << 30)) + zeros(2 << 30),
    "2 GB of zeros behind the end": lambda: gzip.compress(kth()) + zeros(2 << 30),
    "two million folders": lambda: gzip.compress(member("a", kind=tarfile.DIRTYPE) * 2000, 1) * 1000,
}


@pytest.mark.slow
@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_before_it_fills_the_disk(
    refusal: Refused, tmp_path: Path, make: Callable[[], bytes]
) -> None:
    line = tell(refusal, tmp_path, make())
    assert "so it is not the KTH-ANIMALS archive; unpack it and give its folder with --data.root" in line


SPARSE = {"GNU.sparse.map": "x,y", "GNU.sparse.size": "9"}
BROKEN = {
    "empty": lambda: b"",
    "html": lambda: b"<!DOCTYPE html><title>404 Not Found</title>",
    "gzip of text": lambda: gzip.compress(b"no archive"),
    "gzip cut at its header": lambda: gzip.compress(kth())[:8],
    "gzip cut in the middle": lambda: gzip.compress(kth())[:9000],
    "gzip cut before its checksum": lambda: gzip.compress(kth())[:-8],
    "gzip with a wrong checksum": lambda: gzip.compress(kth())[:-8] + bytes(4) + gzip.compress(kth())[-4:],
    "gzip with a wrong bit": lambda: flipped(gzip.compress(kth()), 5000),
    "bzip2 with a wrong bit": lambda: flipped(bz2.compress(kth()), 5000),
    "xz with a wrong bit": lambda: flipped(lzma.compress(kth()), 5000),
    "gzip with junk behind": lambda: gzip.compress(kth()) + b"junk that is no gzip",
    "gzip zero-filled": lambda: gzip.compress(kth())[:9000] + bytes(9000),
    "bzip2 cut": lambda: bz2.compress(kth())[:-100],
    "xz cut": lambda: lzma.compress(kth())[:-100],
    "tar cut in a file": lambda: kth()[:2000],
    "tar cut between files": lambda: kth()[: len(kth()) // 4 // 512 * 512],
    "tar without its end": lambda: kth()[:-1024],
    "tar with a broken header": lambda: kth().replace(b"animal_database/horse", b"animal_databasE/horse", 1),
    "a header of minus one byte": lambda: kth()[:-1024] + declared(-512) + bytes(1024),
    "a size that leads back to its own header": lambda: kth()[:-1024] + member("a", size="-1536") + bytes(1024),
    "a name of 2 GB": lambda: gzip.compress(declared(2_000_000_000, tarfile.GNUTYPE_LONGNAME)),
    "an extended header of 2 GB": lambda: gzip.compress(declared(2_000_000_000, tarfile.XHDTYPE)),
    "ten thousand headers of headers": lambda: member("a", kind=tarfile.XHDTYPE) * 10_000 + bytes(1024),
    "a size that is no number": lambda: member("a", b"x", size="many") + bytes(1024),
    "a sparse file without a map": lambda: member("a", b"x", **SPARSE) + bytes(1024),
    "a zero byte in a name": lambda: member("a", b"x", path="a\0b") + bytes(1024),
    "a name of 300 letters": lambda: member("a" * 300, b"x") + bytes(1024),
    "a file below a file": lambda: member("a", b"x") + member("a/b", b"x") + bytes(1024),
    "a file for a folder": lambda: member("a/b", b"x") + member("a", b"x") + bytes(1024),
}  # fmt: skip


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN)
def test_a_broken_archive_is_refused_and_nothing_of_it_used(
    refusal: Refused, tmp_path: Path, make: Callable[[], bytes]
) -> None:
    line = tell(refusal, tmp_path, make())
    assert "is damaged, incomplete or not a tar archive; download it again" in line


def test_a_zip_archive_is_refused(refusal: Refused, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(f"{TOP}/cat/original/1.png", encoded("png"))
    assert "not a tar archive" in tell(refusal, tmp_path, stream.getvalue(), "animals.zip")


@pytest.mark.parametrize("content", [member("photos/a.png", encoded("png")), bytes(4096)], ids=["photos", "zeros"])
def test_an_archive_of_something_else_names_the_way_to_use_it(refusal: Refused, tmp_path: Path, content: bytes) -> None:
    line = tell(refusal, tmp_path, gzip.compress(content + bytes(1024)))
    assert "is not KTH-ANIMALS; unpack it and give its folder with --data.root" in line


def test_a_file_in_place_of_a_class_folder_is_not_kth_animals(refusal: Refused, tmp_path: Path) -> None:
    assert "is not KTH-ANIMALS" in tell(refusal, tmp_path, member(f"{TOP}/cat/original", b"x") + bytes(1024))


@pytest.mark.parametrize("kind", ["nothing", "folder", "pipe"])
def test_what_is_no_file_is_no_archive(refusal: Refused, tmp_path: Path, kind: str) -> None:
    position = tmp_path / "in/archive.tar.gz"
    position.parent.mkdir()
    if kind == "folder":
        position.mkdir()
    elif kind == "pipe":
        os.mkfifo(position)
    line = tell(refusal, tmp_path, None, position.name)
    assert ("is a folder; name the .tar.gz file" if kind == "folder" else "there is no file") in line


def test_bad_images_in_a_good_archive_are_reported_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bad = member(f"{TOP}/cat/original/3.jpg", bytes(500)) + member(f"{TOP}/cat/original/notes.txt", b"x")
    (tmp_path / "a.tar").write_bytes(kth()[:-1024] + bad + bytes(1024))
    main(["prepare", "--data.archive", str(tmp_path / "a.tar"), "--data.cache_dir", str(tmp_path / "cache")])
    (audit,) = (tmp_path / "cache/catalogues").glob("*/audit.csv")
    assert "4 of 5 files usable in 2 classes" in capsys.readouterr().out
    assert "cat/original/3.jpg,cat,unreadable: " in audit.read_text(encoding="utf-8")
    assert "cat/original/notes.txt,,no image" in audit.read_text(encoding="utf-8")


def attempt(content: bytes) -> str:
    """Unpack into a folder of its own, and tell what came of it; anything but `InputError` comes out."""
    with tempfile.TemporaryDirectory() as folder:
        archive, out = Path(folder, "archive"), Path(folder, "out")
        archive.write_bytes(content)
        out.mkdir()
        try:
            unpack(archive, out)
        except InputError as error:
            assert {entry.name for entry in Path(folder).iterdir()} == {"archive", "out"}
            return str(error)
        return "unpacked"


@pytest.mark.skipif(sys.platform != "linux", reason="counts its memory as Linux does")
@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE], ids=["a name", "an extended header"])
def test_a_header_of_2_GB_of_zeros_does_not_fill_the_memory(kind: bytes) -> None:
    resource = pytest.importorskip("resource")
    content = gzip.compress(declared(2 << 30, kind)) + zeros(2 << 30)
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), before[1]))
    try:
        assert "is damaged, incomplete or not a tar archive; download it again" in attempt(content)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def is_known(said: str) -> bool:
    return said == "unpacked" or said.startswith("--data.archive: ")


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    compress=st.sampled_from([bytes, gzip.compress, bz2.compress, lzma.compress]),
    inside=st.booleans(),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=12),
    cut=st.sampled_from([0, 0, 1, 512, 3000]),
)
def test_any_damage_to_an_archive_is_refused_or_harmless(
    compress: Callable[[bytes], bytes], inside: bool, changes: list[tuple[int, int]], cut: int
) -> None:
    content = bytearray(kth() if inside else compress(kth()))
    for position, value in changes:
        content[position % min(len(content), 1200)] = value
    content = content[: len(content) - cut]
    assert is_known(attempt(compress(bytes(content)) if inside else bytes(content)))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    headers=st.lists(
        st.tuples(st.binary(max_size=100), st.integers(-600, 10**12), st.binary(min_size=1, max_size=1)), max_size=5
    ),
    rest=st.binary(max_size=2000),
)
def test_any_headers_are_refused_or_harmless(headers: list[tuple[bytes, int, bytes]], rest: bytes) -> None:
    content = b""
    for name, size, kind in headers:
        info = tarfile.TarInfo(name.decode("latin-1"))
        info.size, info.type = size, kind
        content += info.tobuf(tarfile.GNU_FORMAT, "latin-1")
    assert is_known(attempt(content + rest))
