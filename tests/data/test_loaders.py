"""Both loaders execute a plan alike. Bad files go to a child process: DALI has been seen to crash on them."""

import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from alexnet2012.core.errors import InputError
from alexnet2012.data import Augmentations, Dataset, TrainingPlan, evaluation_batches, open_dataset, open_loader
from alexnet2012.data.pixels import decode, pnm
from alexnet2012.data.statistics import Statistics
from alexnet2012.recipe import paper_recipe

KINDS = ("pillow", "dali")
RECIPE = paper_recipe()


class Memory(Dataset):
    """Encoded images of 256x256 in memory."""

    square256 = True

    def __init__(self, files: list[bytes], raw: bool = False) -> None:
        super().__init__(np.arange(len(files)) % 7, [str(i) for i in range(7)], None)
        self.files, self.raw = files, raw

    def encoded(self, index: int) -> bytes:
        return self.files[index]

    def name(self, index: int) -> str:
        return f"memory: image {index}"

    def identity(self) -> bytes:
        return b"memory"


def encode(pixels: NDArray[np.uint8], kind: str = "JPEG", **settings) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **settings)
    return file.getvalue()


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """Smooth colours with noise on top."""
    draws = np.random.default_rng(seed)
    smooth = Image.fromarray(draws.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((width, height), 3)
    return Image.fromarray(np.clip(smooth + draws.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def odd_tree(tmp_path_factory) -> Path:
    """What ImageNet's folders hold: odd sizes, CMYK, grey, progressive, a PNG named .JPEG, an EXIF rotation."""
    root = tmp_path_factory.mktemp("odd")
    turned = Image.Exif()
    turned[0x112] = 6
    sizes = [(500, 375), (333, 500), (769, 512), (28, 28), (100, 133), (256, 301), (257, 900), (640, 2000), (256, 256)]
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (root / name).mkdir(parents=True)
        photograph(300, 200, 99).save(root / name / "plain.jpg")
    for seed, size in enumerate(sizes):
        photograph(*size, seed).save(root / "train/a" / f"{size[0]}x{size[1]}.JPEG", quality=90)
    odd = photograph(410, 333, 50)
    odd.convert("CMYK").save(root / "train/b/cmyk.JPEG")
    odd.convert("L").save(root / "train/b/grey.JPEG")
    odd.save(root / "train/b/progressive.JPEG", progressive=True)
    odd.save(root / "train/b/png.JPEG", "PNG")
    odd.convert("RGBA").save(root / "train/b/alpha.png")
    odd.quantize(64).save(root / "train/b/palette.PNG")
    odd.save(root / "train/b/turned.JPEG", exif=turned)
    return root


def plan(dataset: Dataset, batch_size: int, **changes) -> TrainingPlan:
    axes = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    given = Statistics(np.zeros((256, 256, 3), np.float32), np.eye(3), np.array([1e4, 1e3, 3e2]), axes, 1)
    return TrainingPlan(paper_recipe(**changes), len(dataset), batch_size, 5, given, 90)


def run(kind: str, dataset: Dataset, batches, workers: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader = open_loader(kind, dataset, batches, RECIPE, workers)
    try:
        return list(loader)
    finally:
        loader.close()


def both(dataset: Dataset, batches: list) -> tuple[float, list[tuple[torch.Tensor, torch.Tensor]]]:
    """The largest difference of the loaders' pixels, and the Pillow loader's batches. All else must be equal."""
    ours, dalis = (run(kind, dataset, batches) for kind in KINDS)
    assert len(ours) == len(dalis) == len(batches)
    for (image, label), (other, its_label) in zip(ours, dalis, strict=True):
        assert image.shape == other.shape and image.dtype == other.dtype and image.is_contiguous()
        assert torch.equal(label, its_label) and label.dtype == torch.int64
    return max(float((a[0].float() - b[0].float()).abs().max()) for a, b in zip(ours, dalis, strict=True)), ours


def test_jpegs_of_256_become_the_same_crops_to_the_bit():
    dataset = Memory([encode(np.asarray(photograph(256, 256, seed)), quality=90) for seed in range(24)])
    views = [plan(dataset, 8).augmentations(step) for step in range(6)]
    difference, batches = both(dataset, views)
    assert difference == 0
    for (images, labels), asked in zip(batches, views, strict=True):
        assert images.shape == (8, 224, 224, 3) and images.dtype == torch.uint8
        assert labels.tolist() == (asked.index % 7).tolist()
        row = decode(dataset.files[asked.index[0]])[asked.top[0] :, asked.left[0] :][:224, :224]
        row = row[:, ::-1] if asked.reflect[0] else row
        assert np.array_equal(images[0].numpy(), row)


@pytest.mark.parametrize("kind", KINDS)
def test_raw_pixels_become_what_decoded_ones_do(kind):
    pictures = [np.asarray(photograph(256, 256, seed)) for seed in range(12)]
    encoded, raw = (
        Memory([encode(image, "PNG") for image in pictures]),
        Memory([pnm(image) for image in pictures], True),
    )
    for batches in ([plan(raw, 6).augmentations(step) for step in range(3)], list(evaluation_batches(12, 5))):
        for (ours, labels), (theirs, same) in zip(run(kind, raw, batches), run(kind, encoded, batches), strict=True):
            assert torch.equal(ours, theirs) and torch.equal(labels, same)


def test_resized_files_of_every_kind_differ_by_one_at_most(odd_tree):
    dataset = open_dataset(odd_tree, "train")
    crops, _ = both(dataset, [plan(dataset, 6).augmentations(step) for step in range(3)])
    whole, batches = both(dataset, list(evaluation_batches(len(dataset), 7)))
    assert crops <= 1 and whole <= 1
    assert [len(labels) for _, labels in batches] == [7, 7, 4]
    assert batches[0][0].shape == (7, 256, 256, 3) and batches[0][0].dtype == torch.uint8


def test_the_sample_differs_by_one_at_most():
    dataset = open_dataset("sample", "train")
    difference, _ = both(dataset, [plan(dataset, 32).augmentations(step) for step in range(3)])
    assert difference <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_are_exact_to_the_pixel(kind):
    rows, columns = np.mgrid[:256, :256].astype(np.uint8)
    dataset = Memory([encode(np.stack([rows, columns, columns], -1), "PNG")])
    offsets = np.arange(33)
    views = Augmentations(
        np.zeros(66, np.int64),
        np.tile(offsets, 2),
        np.tile(offsets[::-1], 2),
        np.arange(66) >= 33,
        np.zeros((66, 3), np.float32),
        np.zeros((66, 4), np.int64),
    )
    ((images, _),) = run(kind, dataset, [views])
    steps = torch.arange(224)
    for image, top, left, reflect in zip(images, views.top, views.left, views.reflect, strict=True):
        across = steps.flip(0) if reflect else steps
        assert torch.equal(image[..., 0], (steps + top)[:, None].expand(224, 224))
        assert torch.equal(image[..., 1], (across + left).expand(224, 224))


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_any_size_come_in_order(kind):
    dataset = open_dataset("sample", "val")
    sizes = (0, 3, 1, 0, 0, 40, 2, 0)
    batches = [np.arange(size) + 10 * size for size in sizes]
    found = run(kind, dataset, iter(batches), workers=3)
    assert [labels.tolist() for _, labels in found] == [dataset.labels[batch].tolist() for batch in batches]
    assert [tuple(images.shape) for images, _ in found] == [(size, 256, 256, 3) for size in sizes]
    ((images, labels),) = run(kind, dataset, [plan(dataset, 8).augmentations(0, 4, 4)])
    assert images.shape == (0, 224, 224, 3) and images.dtype == torch.uint8 and labels.shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_stay_as_they_were_handed_out(kind):
    dataset = open_dataset("sample", "val")
    batches = [plan(dataset, 16).augmentations(step) for step in range(8)]
    loader = open_loader(kind, dataset, batches, RECIPE, 2)
    kept = [(images, images.clone()) for images, _ in loader]
    loader.close()
    del loader
    assert all(torch.equal(image, copied) for image, copied in kept)


def threads() -> int:
    """Of this process, those of C++ libraries included."""
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_runs_on_after_close(kind):
    dataset = open_dataset("sample", "val")
    run(kind, dataset, [np.arange(4)])  # DALI and torch keep some threads of their own
    before = threads()
    loader = open_loader(kind, dataset, (plan(dataset, 16).augmentations(step) for step in range(50)), RECIPE, 4)
    batches = iter(loader)
    next(batches)
    assert threads() > before
    loader.close()
    batches.close()
    del loader, batches
    for _ in range(100):  # a thread that was joined may stay listed for a moment
        time.sleep(0.05 * (threads() > before))
    assert threads() <= before


def test_a_loader_of_another_kind_is_refused():
    with pytest.raises(InputError, match="--loader ffcv: must be dali or pillow"):
        open_loader("ffcv", open_dataset("sample", "val"), [], RECIPE, 1)


def test_dali_is_not_imported_before_it_is_used():
    code = "import sys; from alexnet2012.data import open_loader; sys.exit('nvidia.dali' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code]).returncode == 0


def bad_files() -> dict[str, bytes]:
    pixels = np.asarray(photograph(256, 256, 0))
    jpeg, png = encode(pixels), encode(pixels, "PNG")
    return {
        "text": b"this is no image\n" * 20,
        "cut_header": jpeg[: jpeg.index(b"\xff\xda") - 40],
        "cut_jpeg": jpeg[: len(jpeg) // 2],
        "cut_png": png[: len(png) // 2],
        "noise": jpeg[:2] + np.random.default_rng(0).bytes(5_000),
        "signature": png[:8],
        "gif": encode(np.zeros((256, 256), np.uint8), "GIF"),
        "empty": b"",
    }


def read_bad_files(kind: str, directory: str) -> None:
    """Each bad file, in a tree and among 256x256 images, must be named by an InputError of one line."""
    good = encode(np.asarray(photograph(256, 256, 1)))
    for what, bad in bad_files().items():
        root = Path(directory) / what
        for name in ("train/a", "train/b", "val/a", "val/b"):
            (root / name).mkdir(parents=True)
            (root / name / "good.jpg").write_bytes(good)
        (root / "train/b/bad.JPEG").write_bytes(bad)
        files = [good] * 128
        files[100] = bad
        for dataset, name in ((open_dataset(root, "train"), "bad.JPEG"), (Memory(files), "memory: image 100")):
            with pytest.raises(InputError, match=rf"^[^\n]*{name}[^\n]*$"):
                run(kind, dataset, [np.arange(len(dataset))] * 2)


def test_pillow_names_bad_files(tmp_path):
    read_bad_files("pillow", str(tmp_path))


def test_dali_names_bad_files_and_does_not_crash(tmp_path):
    code = f"import test_loaders; test_loaders.read_bad_files('dali', {str(tmp_path)!r})"
    child = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr


def one_image(root: Path, image: bytes) -> Dataset:
    """A tree whose first image this is, the others whole."""
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (root / name).mkdir(parents=True)
        (root / name / "1.jpg").write_bytes(encode(np.asarray(photograph(90, 60, 1))))
    (root / "train/a/1.jpg").write_bytes(image)
    return open_dataset(root, "train")


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_with_two_frame_headers_is_refused_by_every_loader(kind, tmp_path):
    jpeg = encode(np.asarray(photograph(90, 60, 0)))
    start = jpeg.index(b"\xff\xc0")
    header = jpeg[start : start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big")]
    dataset = one_image(tmp_path, jpeg[:-2] + header + jpeg[-2:])
    with pytest.raises(InputError, match=r"train/a/1.jpg: not a readable JPEG or PNG"):
        run(kind, dataset, [np.arange(2)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_thumbnail_within_a_jpeg_is_no_second_frame(kind, tmp_path):
    thumbnail = b"Exif" + bytes(2) + encode(np.asarray(photograph(16, 12, 2)))
    jpeg = encode(np.asarray(photograph(90, 60, 0)), exif=thumbnail)
    assert jpeg.count(b"\xff\xc0") == 2
    ((images, labels),) = run(kind, one_image(tmp_path, jpeg), [np.arange(2)])
    assert np.abs(images[0].numpy().astype(int) - decode(jpeg)).max() <= 1 and labels.tolist() == [0, 1]


def plain_views(index: list[int], replacements: list[int]) -> Augmentations:
    """The upper left crops of images, all with the same replacements."""
    count = len(index)
    edges, shift = np.zeros(count, np.int64), np.zeros((count, 3), np.float32)
    return Augmentations(np.array(index), edges, edges, np.zeros(count, bool), shift, np.tile(replacements, (count, 1)))


@pytest.mark.parametrize("kind", KINDS)
def test_bad_images_are_skipped_for_the_plans_replacements(kind, tmp_path):
    """Met again in batches that are read already, too; and where the first replacements are no better."""
    files = [encode(np.full((256, 256, 3), value, np.uint8), "JPEG") for value in range(24)]
    files[3], files[9], files[17] = files[3][:-200], b"no image", files[17][: len(files[17]) // 2]
    files[18] = encode(np.full((256, 256, 3), 18, np.uint8), "PNG")[:100]
    batches = [
        plain_views(list(range(8)), [20, 0]),
        plain_views([3, 9, 10, 17], [9, 21]),
        plain_views([3, 18, 17, 1], [17, 18, 9, 22]),
        plain_views([17, 18, 3, 9], [3, 9, 17, 23]),
    ]
    loader = open_loader(kind, Memory(files), batches, paper_recipe(), workers=2, skip_bad=True)
    values = [images[:, 0, 0, 0].tolist() for images, _ in loader]
    loader.close()
    assert values == [[0, 1, 2, 20, 4, 5, 6, 7], [21, 21, 10, 21], [22, 22, 22, 1], [23] * 4]
    assert sorted(loader.skipped) == [3, 9, 17, 18]


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_whose_replacements_are_all_bad_is_named(kind):
    files = [encode(np.zeros((256, 256, 3), np.uint8))] + [b"no image"] * 5
    loader = open_loader(kind, Memory(files), [plain_views([0, 5], [1, 2, 3, 4])], paper_recipe(), 2, skip_bad=True)
    with pytest.raises(InputError, match=r"image 5: .*; nor can the 4 images that may take its place"):
        list(loader)
    loader.close()
