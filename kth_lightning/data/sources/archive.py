"""Archives: downloaded so that a broken download goes on, unpacked so that nothing leaves the target."""

import errno
import ssl
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path, PurePath
from typing import IO, cast

from kth_lightning.errors import InputError
from kth_lightning.io.progress import Progress

# KTH-ANIMALS has 3,538 members of 76 MB.
_MAX_MEMBERS = 20_000
_MAX_BYTES = 1_000_000_000
_MAX_HEADER = 1 << 16  # tarfile reads an extended header at once, of whatever size it says that it has
_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_UNUSABLE_NAME = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EILSEQ)
_CHUNK = 1 << 20
_TIMEOUT = 15  # seconds without a byte
_RANGE_NOT_SATISFIABLE = 416


def is_url(archive: str) -> bool:
    """Tell a URL from a path."""
    return archive.lower().startswith(("http://", "https://"))


def download(url: str, file: Path) -> None:
    """Download to `file`, going on where an earlier attempt stopped, as neither pooch nor torchvision does.

    What has come so far lies beside `file` with `.part` behind its name, and is renamed when it is whole.

    Raises:
        InputError: The server cannot be reached, refuses, or breaks off.
        OSError: The file cannot be written.
    """
    part = file.with_name(file.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            if response.status != 206:
                have = 0
            length = response.headers["Content-Length"]
            total = have + int(length) if length else None
            with (
                part.open("ab" if have else "wb") as stream,
                Progress(None, "reading images", "download", total, "B", initial=have, unit_scale=True) as bar,
            ):
                while chunk := response.read(_CHUNK):
                    stream.write(chunk)
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE and have:
            part.unlink()
            return download(url, file)
        raise _unreachable(url, f"{error.code} {error.reason}") from None
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError, ValueError) as error:
        raise _unreachable(url, str(getattr(error, "reason", error))) from None
    size = part.stat().st_size
    if total is not None and size != total:
        raise InputError(
            f"--data.archive: the download of {url} broke off after {size:,} of {total:,} bytes; "
            "run the same command again to go on from there"
        )
    part.rename(file)
    return None


def _unreachable(url: str, reason: str) -> InputError:
    return InputError(
        f"--data.archive: cannot download {url} ({reason}); try again, or fetch the archive by other means "
        "and name the file with --data.archive"
    )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive's folders and regular files into an existing folder.

    Raises:
        InputError: The archive is missing, broken, too large, or has a member that is a link or a device or lies
            outside the folder.
        OSError: The folder cannot be written.
    """
    if archive.is_dir():
        raise InputError(
            f"--data.archive: {archive} is a folder; name the .tar.gz file, or an unpacked folder with --data.root"
        )
    if not archive.is_file():
        raise InputError(f"--data.archive: there is no file {archive}; check the path")
    with (
        archive.open("rb") as stream,
        Progress.wrapattr(stream, "read", archive.stat().st_size, name="reading images", detail="unpacking") as counted,
    ):
        try:
            with tarfile.open(fileobj=cast(IO[bytes], counted), mode="r:*", tarinfo=_Member) as tar:
                tar.extractall(folder, _within_limits(tar, archive), filter=_regular)
                _read_to_end(cast(IO[bytes], tar.fileobj), tar.offset, archive)
        except (InputError, MemoryError):
            raise
        except tarfile.FilterError as error:
            raise InputError(
                f"--data.archive: {archive} holds {error.tarinfo.name!r}, which is not a regular file inside the "
                "archive's own folder; nothing was unpacked, fetch the archive from a source that you trust"
            ) from None
        except OSError as error:
            if error.errno in (None, *_UNUSABLE_NAME):
                raise _broken(archive) from None
            raise  # not the archive but the disk
        except Exception:  # tarfile raises whatever the broken bytes make it stumble over
            raise _broken(archive) from None


def _broken(archive: Path) -> InputError:
    return InputError(f"--data.archive: {archive} is damaged, incomplete or not a tar archive; download it again")


def _too_large(archive: Path) -> InputError:
    return InputError(
        f"--data.archive: {archive} holds more than {_MAX_MEMBERS:,} files or {_MAX_BYTES // 10**9} GB, so it is not "
        "the KTH-ANIMALS archive; unpack it and give its folder with --data.root"
    )


class _Member(tarfile.TarInfo):
    """A member whose extended header is looked at before tarfile reads it.

    No public method comes between; tests/test_private_names.py watches the name.
    """

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED and not 0 <= self.size <= _MAX_HEADER:
            raise tarfile.ReadError(f"an extended header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


def _read_to_end(stream: IO[bytes], end: int, archive: Path) -> None:
    """Check that the members end where the archive does, and read what is behind: gzip keeps its checksum there.

    A header that is broken, or cut off, looks to tarfile like the end.
    """
    stream.seek(end)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end of the archive")
    size = 0
    while chunk := stream.read(_CHUNK):
        size += len(chunk)
        if size > _MAX_BYTES:
            raise _too_large(archive)


def _within_limits(tar: tarfile.TarFile, archive: Path) -> Iterator[tarfile.TarInfo]:
    size = 0
    for count, member in enumerate(tar, start=1):
        if member.size < 0:  # by which tarfile would go back, and never end
            raise tarfile.ReadError(f"a member of {member.size} bytes")
        size += member.size
        if count > _MAX_MEMBERS or size > _MAX_BYTES:
            raise _too_large(archive)
        yield member


def _regular(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Refuse more than tarfile's own filter does, which lets links through and cuts the slash off absolute paths."""
    if not (member.isfile() or member.isdir()) or PurePath(member.name).is_absolute():
        raise tarfile.SpecialFileError(member)
    return tarfile.data_filter(member, folder)
