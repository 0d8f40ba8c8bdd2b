"""Real data: MNIST and its relatives as plain tensors that live on one device.

MNIST (LeCun, Cortes & Burges; CC BY-SA 3.0) is shipped with the package, so nothing is downloaded.
The whole data set is a pair of tensors, so a batch is one indexing operation on the device
that holds it: no loaders, no worker processes.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import tarfile
import zlib
from importlib import resources
from pathlib import Path

import numpy as np
import torch

from gtnlib.data.scale import Scale
from gtnlib.data.sets import Dataset, Split, check_device, default_device
from gtnlib.support.errors import DataError, check_choice, check_path
from gtnlib.support.files import LIMIT

VALIDATION_SIZE = 10_000
MNIST_SHA256 = "d155132ebfd1a04355b4ecaea33a5a8d0ef7737640a24b2808e8b4ffc71daa4c"
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"

# Mean and standard deviation of the training pixels, per channel, after scaling to [0, 1].
STATISTICS = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "kmnist": ((0.1918,), (0.3483,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}
# The class of torchvision.datasets, which is also the name of the folder it keeps its files in.
TORCHVISION_NAMES = {"fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}


def load_dataset(
    name: str = "mnist",
    root: str | os.PathLike | None = None,
    download: bool = True,
    device: str | torch.device | None = None,
) -> Dataset:
    """Load a data set as normalised tensors on one device.

    Parameters
    ----------
    name: "mnist" (shipped with the package), "fashion_mnist", "kmnist" or "cifar10".
    root: folder that holds, or will hold, the files of the other data sets, as torchvision lays
        them out; default the environment variable GTNLIB_DATA, else ~/.cache/gtnlib.
    download: fetch missing files through torchvision.
    device: where the tensors live; default the GPU if there is one.

    Returns
    -------
    Dataset whose `train`, `validation` and `test` hold float32 images (N, C, H, W) and int64
    labels (N,). The validation part is the last 10 000 images of the training file.

    Raises
    ------
    ValueError: unknown name.
    DataError: a file is missing, damaged, or cannot be downloaded.
    """
    check_choice("name", name, STATISTICS)
    device = check_device("device", device) if device is not None else default_device()
    folder = check_path("root", "~/.cache/gtnlib")
    if os.environ.get("GTNLIB_DATA"):
        folder = check_path("GTNLIB_DATA", os.environ["GTNLIB_DATA"])
    if root is not None:
        folder = check_path("root", root)
    if name == "mnist":
        arrays = _read_shipped_mnist(resources.files("gtnlib") / "mnist.npz")
    elif name == "cifar10":
        arrays = _read_cifar10(folder, download)
    else:
        arrays = _read_idx_dataset(folder, TORCHVISION_NAMES[name], download)
    return _to_dataset(name, device, *arrays)


def _to_dataset(name, device, images, labels, test_images, test_labels) -> Dataset:
    mean, std = (torch.tensor(s, device=device).view(1, -1, 1, 1) for s in STATISTICS[name])

    def split(images: np.ndarray, labels: np.ndarray) -> Split:
        if len(images) != len(labels) or images.dtype != np.uint8:
            raise DataError(f"{name}: {len(images)} images of {images.dtype}, {len(labels)} labels.")
        if images.ndim != 4 or images.shape[1] != mean.numel():
            raise DataError(f"{name}: images of shape {images.shape[1:]} are not its images.")
        pixels = torch.tensor(images, device=device).float().div_(255)
        try:
            return Split(pixels.sub_(mean).div_(std), torch.tensor(labels, device=device).long())
        except (ValueError, TypeError) as error:
            raise DataError(f"{name}: {error}") from error

    cut = len(labels) - VALIDATION_SIZE
    if cut <= 0:
        raise DataError(f"{name}: only {len(labels)} training images, expected over 10 000.")
    return Dataset(
        name,
        train=split(images[:cut], labels[:cut]),
        validation=split(images[cut:], labels[cut:]),
        test=split(test_images, test_labels),
        scale=Scale(name, *STATISTICS[name]),
    )


def _read_shipped_mnist(path) -> tuple[np.ndarray, ...]:
    """The four MNIST arrays from the package's own file, checked against its SHA-256."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}. Reinstall gtnlib.") from error
    if hashlib.sha256(content).hexdigest() != MNIST_SHA256:
        raise DataError(f"{path} is damaged (wrong SHA-256). Reinstall gtnlib.")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images, test_images = (arrays[key][:, None] for key in ("train_images", "test_images"))
        return images, arrays["train_labels"], test_images, arrays["test_labels"]


def _read_idx_dataset(folder: Path, class_name: str, download: bool) -> tuple[np.ndarray, ...]:
    """Fashion-MNIST and KMNIST: four IDX files, plain or gzipped."""
    stems = [f"{part}-{what}" for part in ("train", "t10k")
             for what in ("images-idx3-ubyte", "labels-idx1-ubyte")]  # fmt: skip
    places = [folder / class_name / "raw", folder]

    def found(place: Path) -> list[Path]:
        files = [[place / (stem + suffix) for suffix in ("", ".gz")] for stem in stems]
        return [
            next(file for file in pair if file.is_file()) for pair in files if any(map(Path.is_file, pair))
        ]

    def best() -> list[Path]:
        return max(map(found, places), key=len)  # of one place, since other sets have the same names

    if download and len(best()) < len(stems):
        from torchvision import datasets  # slow to import, so only where it is needed

        for train in (True, False):
            try:
                getattr(datasets, class_name)(str(folder), train=train, download=True)
            except (OSError, RuntimeError) as error:
                raise _no_download(class_name, folder, error) from error
    if len(files := best()) < len(stems):
        missing = next(stem for stem in stems if not any(file.name.startswith(stem) for file in files))
        raise DataError(
            f"{class_name}: no {missing}[.gz] beside the others in {places[1]} or {places[0]}. Put all four "
            "IDX files into one of them, name their folder with root= or GTNLIB_DATA, or pass download=True."
        )
    images, labels, test_images, test_labels = map(read_idx, files)
    _check_not_another(class_name, images[:VALIDATION_SIZE], files[0])
    return images[:, None], labels, test_images[:, None], test_labels


def _check_not_another(class_name: str, images: np.ndarray, path: Path) -> None:
    """Raise if images look like those of another set, whose files have the same names."""
    own = next(name for name, known in TORCHVISION_NAMES.items() if known == class_name)
    seen = (images.mean() / 255, images.std() / 255) if images.size else (0.0, 0.0)
    for name, (mean, std) in STATISTICS.items():
        if name != own and len(mean) == 1 and np.allclose(seen, (mean[0], std[0]), rtol=0, atol=0.01):
            raise DataError(f"{path} holds the images of {name}, not of {class_name}, by their mean and "
                            "standard deviation. Move them elsewhere.")  # fmt: skip


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Read a file in the IDX format of unsigned bytes (LeCun et al.), plain or gzipped.

    Raises DataError if the file is truncated, of another format, or larger than `LIMIT` bytes; no more
    is unpacked than its header promises.
    """
    path = check_path("path", path)
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            start = file.read(4)
            if len(start) < 4 or start[:3] != b"\0\0\x08":
                raise DataError(f"{path} is not an IDX file of unsigned bytes.")
            dims = start[3]
            header = file.read(4 * dims)
            if len(header) < 4 * dims:
                raise DataError(f"{path} is damaged: its header is cut. Delete it and fetch it again.")
            if not 1 <= dims <= 32:
                raise DataError(f"{path} is not an IDX file of 1 to 32 dimensions, but of {dims}.")
            shape = tuple(int(n) for n in np.frombuffer(header, ">u4"))
            size = math.prod(shape)
            if size > LIMIT:
                raise DataError(f"{path} promises shape {shape}, more than the limit of {LIMIT:,} bytes.")
            body = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}. Delete it and fetch it again.") from error
    if len(body) != size:
        follow = f"{len(body)} bytes" if len(body) < size else "more bytes"
        raise DataError(
            f"{path} is damaged: its header promises shape {shape}, but {follow} follow. "
            "Delete it and fetch it again."
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def _read_cifar10(folder: Path, download: bool) -> tuple[np.ndarray, ...]:
    """CIFAR-10 from its binary version, which needs no pickle."""
    base = folder / "cifar-10-batches-bin"
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    if download and not all((base / name).is_file() for name in names):
        from torchvision.datasets.utils import download_url

        try:
            download_url(CIFAR10_URL, str(folder), md5=CIFAR10_MD5)
            with tarfile.open(folder / "cifar-10-binary.tar.gz") as archive:
                archive.extractall(folder, filter="data")
        except (OSError, RuntimeError, tarfile.TarError) as error:
            raise _no_download("CIFAR-10", folder, error) from error
    parts = []
    for name in names:
        try:
            with open(base / name, "rb") as file:
                content = file.read(10_000 * 3073 + 1)
        except OSError as error:
            raise DataError(
                f"CIFAR-10: cannot read {base / name}: {error}. Unpack the binary version of "
                "CIFAR-10 there, name another folder with root= or GTNLIB_DATA, or pass "
                "download=True."
            ) from error
        if len(content) != 10_000 * 3073:
            raise DataError(f"{base / name} is damaged: {len(content)} bytes instead of 30730000.")
        parts.append(np.frombuffer(content, np.uint8).reshape(-1, 3073))
    train, test = np.concatenate(parts[:5]), parts[5]
    return (
        train[:, 1:].reshape(-1, 3, 32, 32), train[:, 0], test[:, 1:].reshape(-1, 3, 32, 32), test[:, 0]
    )  # fmt: skip


def _no_download(name: str, folder: Path, error: Exception) -> DataError:
    return DataError(
        f"{name} is not in {folder} and could not be downloaded ({error}). Connect to a network, "
        "or copy the files there, or name their folder with root= or GTNLIB_DATA."
    )
