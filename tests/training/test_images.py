import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kubeloop.datasets import Commit, IngestConfig, ingest, open_dataset
from kubeloop.datasets.images import decode_image
from kubeloop.errors import InputError
from kubeloop.training import images as training_images
from kubeloop.training.images import (
    ImageBatches,
    ImageClassifier,
    augment_images,
    choose_image_size,
    export_classifier,
    load_split,
    measure_normalization,
    resize_images,
)
from kubeloop.training.preprocessing import (
    REDUCTION_MARGIN,
    ImagePreprocessing,
    parse_preprocessing,
)
from kubeloop.training.vision import build_backbone, list_architectures

GREY = ImagePreprocessing(channels=1, image_size=16)


def build_classifier(preprocessing: ImagePreprocessing = GREY) -> ImageClassifier:
    torch.manual_seed(0)
    backbone = build_backbone(
        "shufflenet_v2_x0_5", num_classes=3, image_size=preprocessing.image_size
    )
    mean = torch.full((preprocessing.channels,), 100.0)
    std = torch.full((preprocessing.channels,), 50.0)
    return ImageClassifier(backbone, preprocessing=preprocessing, mean=mean, std=std).eval()


def test_images_of_the_right_size_stay_as_they_are() -> None:
    images = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)

    assert torch.equal(resize_images(images, 16), images.float())


def test_resized_images_are_whole_numbers_in_range() -> None:
    images = torch.randint(0, 256, (2, 3, 37, 11), dtype=torch.uint8)

    resized = resize_images(images, 16)

    assert resized.shape == (2, 3, 16, 16)
    assert torch.equal(resized, resized.round().clamp(0, 255))


def test_the_model_sees_in_serving_what_it_saw_in_training(commit: Commit) -> None:
    dataset = open_dataset(commit.uri)
    classifier = build_classifier()
    images, labels = load_split(dataset.split("test"), GREY)
    batches = ImageBatches(images, labels, classifier=classifier, augment=False)

    with torch.inference_mode():
        inputs, _ = batches.fetch(torch.arange(5), None)
        trained = classifier.backbone(inputs).softmax(1)
        raw = torch.stack(
            [torch.tensor(dataset.split("test").image(row, channels=1).image) for row in range(5)]
        )
        served = classifier(raw)

    assert torch.equal(trained, served)


def test_augmentation_is_light_and_repeatable() -> None:
    images = torch.zeros(64, 1, 16, 16)
    images[:, :, 6:10, 6:10] = 1.0

    first = augment_images(images, torch.Generator().manual_seed(1))
    again = augment_images(images, torch.Generator().manual_seed(1))

    assert torch.equal(first, again)
    assert not torch.equal(first, augment_images(images, torch.Generator().manual_seed(2)))
    centres = (first.sum((1, 2)) * torch.arange(16)).sum(1) / first.sum((1, 2, 3))
    assert (centres - 7.5).abs().max() < 1.5
    assert (centres - 7.5).abs().max() > 0.3


def test_normalization_is_that_of_the_pixels() -> None:
    images = torch.randint(0, 256, (50, 3, 9, 7), dtype=torch.uint8)

    mean, std = measure_normalization(images)

    pixels = images.double().permute(1, 0, 2, 3).reshape(3, -1)
    assert torch.allclose(mean, pixels.mean(1).float())
    assert torch.allclose(std, pixels.std(1, unbiased=False).float())


def test_a_blank_channel_does_not_divide_by_zero() -> None:
    _, std = measure_normalization(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))

    assert std.tolist() == [1.0]


@pytest.mark.parametrize(
    ("sides", "size"),
    [((8, 8), 16), ((28, 28), 32), ((32, 20), 32), ((96, 60), 128), ((640, 480), 224)],
)
def test_the_working_size_fits_the_images(sides: tuple[float, float], size: int) -> None:
    assert choose_image_size(sides) == size


def test_data_that_does_not_fit_in_memory_is_refused(
    commit: Commit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_images, "MAX_LOADED_BYTES", 1000)

    with pytest.raises(InputError, match="more than the 1000 that fit in memory"):
        load_split(open_dataset(commit.uri).split("train"), GREY)


def test_the_exported_model_takes_batches_and_images_of_any_size() -> None:
    classifier = build_classifier(ImagePreprocessing(channels=3, image_size=16))

    exported = export_classifier(classifier).module()

    with torch.inference_mode():
        for shape in ((1, 8, 8), (3, 16, 16), (70, 5, 30)):
            images = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)
            expected = classifier(images)
            assert torch.allclose(exported(images), expected, atol=1e-5)
            assert torch.allclose(expected.sum(1), torch.ones(shape[0]))


def test_images_of_one_size_are_stacked_as_they_are() -> None:
    images = [np.full((8, 8, 1), value, dtype=np.uint8) for value in (1, 2)]

    assert GREY.stack(images).shape == (2, 8, 8, 1)


def test_images_of_several_sizes_are_stacked_as_the_model_would_resize_them() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, shape, dtype=np.uint8) for shape in ((8, 8, 1), (20, 30, 1))]
    classifier = build_classifier()

    batch = GREY.stack(images)

    assert batch.shape == (2, 16, 16, 1)
    with torch.inference_mode():
        together = classifier(torch.from_numpy(batch))
        alone = torch.cat([classifier(torch.from_numpy(image[np.newaxis])) for image in images])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("shape", [(120, 90, 3), (17, 400, 3)])
@pytest.mark.parametrize("name", ["JPEG", "GIF"])
def test_a_large_image_is_shrunk_as_the_model_would_within_a_level(
    shape: tuple[int, int, int], name: str
) -> None:
    preprocessing = ImagePreprocessing(channels=3, image_size=32)
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(file, name)

    shrunk = preprocessing.decode(file.getvalue())

    assert shrunk.shape == (32, 32, 3)
    full = decode_image(file.getvalue())
    wanted = preprocessing.resize(full)
    assert np.abs(shrunk.astype(int) - wanted).max() <= 1
    assert preprocessing.resize(shrunk) is shrunk


@pytest.mark.parametrize("image_size", [64, 120])
def test_a_jpeg_decoded_at_a_fraction_looks_as_if_decoded_whole(image_size: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((320, 240)).save(file, "JPEG", quality=90)

    whole, reduced = (
        ImagePreprocessing(
            channels=3, image_size=image_size, reduction_margin=reduction_margin
        ).decode(file.getvalue())
        for reduction_margin in (0.0, REDUCTION_MARGIN)
    )

    difference = np.abs(whole.astype(int) - reduced)
    assert whole.shape == reduced.shape == (image_size, image_size, 3)
    assert 0 < difference.mean() < 3
    assert difference.max() < 20


def test_training_loads_files_as_serving_decodes_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label, side in (("a", 50), ("b", 9)):
        (tmp_path / "source" / label).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 255, (side, side + 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "source" / label / f"{number}.jpg")
    config = IngestConfig(name="n", source=str(tmp_path / "source"), store=str(tmp_path / "store"))
    split = open_dataset(ingest(config).uri).split("train")
    preprocessing = ImagePreprocessing(channels=3, image_size=16, reduction_margin=REDUCTION_MARGIN)

    images, _ = load_split(split, preprocessing)

    served = preprocessing.prepare([example.data for example in split])[0]
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), served)


def test_preprocessing_is_read_back() -> None:
    assert parse_preprocessing(GREY.render()) == GREY
    reduced = ImagePreprocessing(channels=3, image_size=16, reduction_margin=1.5)
    assert parse_preprocessing(reduced.render()) == reduced
    older = {"kind": "image", "channels": 1, "image_size": 16}
    assert parse_preprocessing(older) == GREY
    assert parse_preprocessing({**older, "channels": 3, "reduces": True}) == reduced
    with pytest.raises(InputError, match="Unknown preprocessing"):
        parse_preprocessing({"kind": "sound"})


@pytest.mark.parametrize("architecture", ["shufflenet_v2_x0_5", "resnet18", "mobilenet_v3_small"])
@pytest.mark.parametrize("image_size", [16, 32, 64])
def test_backbones_take_small_images(architecture: str, image_size: int) -> None:
    backbone = build_backbone(architecture, num_classes=5, image_size=image_size).eval()

    assert backbone(torch.zeros(2, 3, image_size, image_size)).shape == (2, 5)


def test_an_unknown_backbone_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"Unknown architecture 'resnet19'; .* such as resnet18"):
        build_backbone("resnet19", num_classes=2, image_size=32)
    assert "resnet18" in list_architectures()


def test_a_backbone_that_cannot_take_the_size_says_so() -> None:
    with pytest.raises(InputError, match="alexnet cannot take images of 16 pixels"):
        build_backbone("alexnet", num_classes=2, image_size=16)
