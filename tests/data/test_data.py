"""Real data: the shipped MNIST is the original; other files are read, or refused with reason."""

import gzip
import hashlib
import os
import struct
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch

from gtnlib import DataError, Split, default_device, load_dataset
from gtnlib.data.load import read_idx

# MD5 of the four unzipped IDX files.
MNIST_MD5 = {
    "train images": "6bbc9ace898e44ae57da46a324031adb",
    "train labels": "a25bea736e30d166cdddb491f175f624",
    "test images": "2646ac647ad5339dbf082846283269ea",
    "test labels": "27ae3e4e09519cfbb04c329615203637",
}


def idx_bytes(array):
    array = np.asarray(array, np.uint8)
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


# ---------------------------------------------------------------- MNIST


def test_mnist_has_its_sizes_shapes_and_types(mnist):
    assert [len(part) for part in (mnist.train, mnist.validation, mnist.test)] == [
        50000,
        10000,
        10000,
    ]
    assert mnist.shape == (1, 28, 28) and mnist.num_classes == 10
    for part in (mnist.train, mnist.validation, mnist.test):
        assert part.images.shape[1:] == (1, 28, 28) and part.images.dtype == torch.float32
        assert part.labels.shape == (len(part),) and part.labels.dtype == torch.int64


def test_mnist_is_normalised(mnist):
    assert float(mnist.train.images.mean()) == pytest.approx(0, abs=5e-3)
    assert float(mnist.train.images.std()) == pytest.approx(1, abs=5e-3)


def test_mnist_is_the_original_file_for_file(mnist):
    """Un-normalised, the tensors are the published files; so validation is the last 10 000 too."""

    def pixels(*parts):
        images = torch.cat([part.images for part in parts])
        return ((images * 0.3081 + 0.1307) * 255).round().to(torch.uint8)[:, 0].numpy()

    labels = torch.cat([mnist.train.labels, mnist.validation.labels])
    files = {
        "train images": pixels(mnist.train, mnist.validation),
        "train labels": labels.numpy(),
        "test images": pixels(mnist.test),
        "test labels": mnist.test.labels.numpy(),
    }
    assert {name: hashlib.md5(idx_bytes(a)).hexdigest() for name, a in files.items()} == MNIST_MD5


def test_mnist_has_the_known_number_of_every_digit(mnist):
    train = torch.bincount(torch.cat([mnist.train.labels, mnist.validation.labels]))
    assert train.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = torch.bincount(mnist.test.labels)
    assert test.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_damaged_package_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mnist.npz").write_bytes(b"PK something else")
    monkeypatch.setattr("gtnlib.data.load.resources.files", lambda package: tmp_path)
    with pytest.raises(DataError, match="damaged.*Reinstall"):
        load_dataset("mnist")
    (tmp_path / "mnist.npz").unlink()
    with pytest.raises(DataError, match="cannot read.*Reinstall"):
        load_dataset("mnist")


def test_moving_to_the_same_device_copies_nothing(mnist):
    assert mnist.train.to("cpu") is mnist.train
    assert mnist.to("cpu").test.images is mnist.test.images
    assert mnist.device == torch.device("cpu")
    assert default_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


# ---------------------------------------------------------------- sampling


@pytest.fixture
def marked():
    """40 images of four unequal classes, each image filled with its own number."""
    labels = torch.tensor([0] * 4 + [1] * 6 + [2] * 10 + [3] * 20)[torch.randperm(40)]
    return Split(torch.arange(40.0).view(-1, 1, 1, 1).expand(-1, 1, 2, 2), labels, num_classes=4)


@pytest.mark.parametrize("n", [1, 4, 10, 103])
def test_sample_is_balanced_to_one_image(marked, n):
    images, labels = marked.sample(n)
    assert images.shape == (n, 1, 2, 2) and labels.shape == (n,)
    counts = torch.bincount(labels, minlength=4)
    assert int(counts.max() - counts.min()) <= 1


@pytest.mark.parametrize("wanted", [None, [3, 3, 0, 1, 2, 2, 2, 0]])
def test_sampled_images_have_the_labels_they_come_with(marked, wanted):
    wanted = None if wanted is None else torch.tensor(wanted)
    images, labels = marked.sample(8, labels=wanted)
    assert wanted is None or torch.equal(labels, wanted)
    assert torch.equal(marked.labels[images[:, 0, 0, 0].long()], labels)


def test_sample_reaches_every_image_about_equally_often(marked):
    images, labels = marked.sample(40_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(images[:, 0, 0, 0].long(), minlength=40)
    expected = 10_000 / torch.bincount(marked.labels)[marked.labels]
    assert (counts / expected - 1).abs().max() < 0.2


def test_the_remainder_goes_to_random_classes(marked):
    generator = torch.Generator().manual_seed(0)
    assert {int(marked.sample(1, generator)[1]) for _ in range(50)} == {0, 1, 2, 3}


def test_sample_repeats_with_its_generator_and_leaves_the_global_one(mnist, random_state_untouched):
    one, two, other = (mnist.train.sample(30, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])


# ---------------------------------------------------------------- IDX files


def write_idx_dataset(folder, train=10_020, suffix=".gz"):
    """Blank images, but the first pixel of image i is i mod 256; labels i mod 10."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", train), ("t10k", 30)):
        images = np.zeros((n, 28, 28), np.uint8)
        images[:, 0, 0] = np.arange(n) % 256
        for what, array in (("images-idx3", images), ("labels-idx1", np.arange(n) % 10)):
            content = idx_bytes(array)
            content = gzip.compress(content, 1) if suffix else content
            (folder / f"{part}-{what}-ubyte{suffix}").write_bytes(content)


@pytest.mark.parametrize(
    "name, place, suffix",
    [
        ("fashion_mnist", "FashionMNIST/raw", ".gz"),
        ("kmnist", "KMNIST/raw", ""),
        ("kmnist", ".", ".gz"),
    ],
)
def test_idx_files_are_found_and_split(tmp_path, monkeypatch, name, place, suffix):
    write_idx_dataset(tmp_path / place, suffix=suffix)
    monkeypatch.setenv("GTNLIB_DATA", str(tmp_path))
    data = load_dataset(name, device="cpu")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [20, 10_000, 30]
    mean, std = {"fashion_mnist": (0.2860, 0.3530), "kmnist": (0.1918, 0.3483)}[name]
    first = (data.validation.images[:3, 0, 0, 0] * std + mean) * 255
    torch.testing.assert_close(first, torch.tensor([20.0, 21.0, 22.0]), rtol=0, atol=1e-3)
    assert data.validation.labels[:3].tolist() == [0, 1, 2]
    assert repr(data) == f"Dataset('{name}', train / validation / test 20 / 10000 / 30, cpu)"


@pytest.mark.parametrize("shape", [(5,), (4, 3, 2), (0, 2)])
def test_idx_round_trip(tmp_path, shape):
    array = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    (tmp_path / "file").write_bytes(idx_bytes(array))
    assert np.array_equal(read_idx(tmp_path / "file"), array) and read_idx(tmp_path / "file").shape == shape


@pytest.mark.parametrize("length", range(21))
def test_idx_file_cut_anywhere_is_refused(tmp_path, length):
    content = idx_bytes(np.zeros((1, 2, 3)))
    (tmp_path / "plain").write_bytes(content[:length])
    with pytest.raises(DataError, match="plain"):
        read_idx(tmp_path / "plain")
    (tmp_path / "zipped.gz").write_bytes(gzip.compress(content)[:length])
    with pytest.raises(DataError, match="zipped.gz"):
        read_idx(tmp_path / "zipped.gz")


@pytest.mark.parametrize(
    "content, message",
    [
        pytest.param(b"<html>Not found</html>", "not an IDX file", id="html"),
        pytest.param(b"\0\0\x0d\1\0\0\0\1\0\0\0\0", "not an IDX file of unsigned bytes", id="floats"),
        pytest.param(
            idx_bytes(np.zeros(5)) + b"\0", r"promises shape \(5,\), but more bytes follow", id="long"
        ),
        pytest.param(b"\0\0\x08\3" + b"\xff" * 12, "more than the limit of 1,073,741,824 bytes", id="huge"),
    ],
)
def test_foreign_idx_file_is_refused(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "file")


@pytest.mark.parametrize(
    "file, array, message",
    [
        pytest.param("train-labels-idx1", np.full(10_020, 11), "labels must lie in 0 … 9", id="labels"),
        pytest.param("train-labels-idx1", np.zeros(10_021), "9999 images of uint8, 10000 labels", id="count"),
        pytest.param("train-images-idx3", np.zeros(10_020), "images of shape .1,. are not", id="shape"),
        pytest.param("train-labels-idx1", np.zeros(9_000), "only 9000 training images", id="few"),
    ],
)
def test_idx_files_that_do_not_belong_together_are_refused(tmp_path, file, array, message):
    write_idx_dataset(tmp_path)
    (tmp_path / f"{file}-ubyte.gz").write_bytes(gzip.compress(idx_bytes(array)))
    with pytest.raises(DataError, match=message):
        load_dataset("kmnist", tmp_path, device="cpu")


def test_the_folder_of_the_set_comes_before_files_that_may_be_of_another(tmp_path):
    write_idx_dataset(tmp_path / "KMNIST" / "raw")
    for part, n in (("train", 10_020), ("t10k", 30)):
        content = gzip.compress(idx_bytes(np.full(n, 3)))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(content)
    data = load_dataset("kmnist", tmp_path, device="cpu")
    assert data.validation.labels[:3].tolist() == [0, 1, 2]


def test_files_of_two_places_are_not_one_set(tmp_path):
    write_idx_dataset(tmp_path)
    (tmp_path / "KMNIST" / "raw").mkdir(parents=True)
    name = "train-labels-idx1-ubyte.gz"
    (tmp_path / name).rename(tmp_path / "KMNIST" / "raw" / name)
    with pytest.raises(DataError, match="no train-labels-idx1-ubyte.* beside the others in"):
        load_dataset("kmnist", tmp_path, download=False)


def test_images_of_another_set_are_refused(tmp_path, mnist):
    pixels = (mnist.test.images[:, 0] * 0.3081 + 0.1307) * 255
    train = np.concatenate([pixels.round().numpy().astype(np.uint8), np.zeros((20, 28, 28), np.uint8)])
    write_idx_dataset(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(train), 1))
    with pytest.raises(DataError, match="holds the images of mnist, not of FashionMNIST"):
        load_dataset("fashion_mnist", tmp_path, device="cpu")


# ---------------------------------------------------------------- CIFAR-10


@pytest.fixture(scope="module")
def cifar_folder(tmp_path_factory):
    """One file of blank images, six times; image i has label i mod 10 and three marked pixels."""
    folder = tmp_path_factory.mktemp("cifar")
    base = folder / "cifar-10-batches-bin"
    base.mkdir()
    rows = np.zeros((10_000, 3073), np.uint8)
    rows[:, 0] = np.arange(10_000) % 10
    rows[:, 1 + 1] = 50  # red, row 0, column 1
    rows[:, 1 + 1024 + 32] = 100  # green, row 1, column 0
    rows[:, 3072] = 200  # blue, last row and column
    (base / "data_batch_1.bin").write_bytes(rows.tobytes())
    for name in [f"data_batch_{i}.bin" for i in range(2, 6)] + ["test_batch.bin"]:
        os.symlink(base / "data_batch_1.bin", base / name)
    return folder


def test_cifar_is_read_in_its_binary_layout(cifar_folder):
    data = load_dataset("cifar10", cifar_folder, download=False, device="cpu")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [40000, 10000, 10000]
    assert data.shape == (3, 32, 32)
    image = data.test.images[7].double()
    pixels = image * torch.tensor([[[0.2470]], [[0.2435]], [[0.2616]]])
    pixels = (pixels + torch.tensor([[[0.4914]], [[0.4822]], [[0.4465]]])) * 255
    found = {tuple(i): round(float(pixels[tuple(i)])) for i in torch.nonzero(pixels > 1).tolist()}
    assert found == {(0, 0, 1): 50, (1, 1, 0): 100, (2, 31, 31): 200}
    assert data.train.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


def test_cut_cifar_file_is_refused(cifar_folder, tmp_path):
    base = tmp_path / "cifar-10-batches-bin"
    base.mkdir()
    for file in (cifar_folder / base.name).iterdir():
        os.symlink(file, base / file.name)
    (base / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match="cannot read .*data_batch_3.bin.*GTNLIB_DATA"):
        load_dataset("cifar10", tmp_path, download=False)
    (base / "data_batch_3.bin").write_bytes(bytes(3073))
    with pytest.raises(DataError, match="data_batch_3.bin is damaged: 3073 bytes"):
        load_dataset("cifar10", tmp_path, download=False)


# ---------------------------------------------------------------- without a network


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist", "cifar10"])
@pytest.mark.parametrize("error", [urllib.error.URLError("no route to host"), OSError("no network")])
def test_without_a_network_the_message_says_what_to_do(tmp_path, monkeypatch, name, error):
    def offline(*args, **keywords):
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(DataError, match="(?s)could not be downloaded.*root= or GTNLIB_DATA"):
        load_dataset(name, tmp_path)


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist", "cifar10"])
def test_nothing_is_fetched_without_download(tmp_path, monkeypatch, name):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: pytest.fail("went online"))
    with pytest.raises(DataError, match="download=True"):
        load_dataset(name, tmp_path, download=False)


def test_files_that_are_there_are_not_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: pytest.fail("went online"))
    write_idx_dataset(tmp_path / "KMNIST" / "raw")
    load_dataset("kmnist", tmp_path, device="cpu")
