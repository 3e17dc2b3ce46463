"""What folders mean: parts at any level and in any spelling, wrappers, masks, thumbnails, folders of the system."""

import numpy as np
import pytest
from PIL import Image

from expost.data import load_data
from expost.data.folders import sort_files
from expost.data.side_folders import without_system
from expost.errors import DataError, UsageError

RNG = np.random.default_rng(0)


def tree(folder, *names, side=8):
    """Write a distinct image under each name, and return their bytes by name."""
    written = {}
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(image).save(path)
        written[name] = image.transpose(2, 0, 1).tobytes()
    return written


def numbered(*folders, count=5):
    return [f"{folder}/{index}.png" for folder in folders for index in range(count)]


def found(*names, **options):
    """Return the files by part and class, under "" where there are none: {"train": {"cat": ["cat/train/1.png"]}}."""
    result = sort_files([tuple(name.split("/")) for name in names], **options)
    by_part = {}
    for part, indices in result.parts.items():
        labels = result.labels[part] or [""] * len(indices)
        for index, label in zip(indices, labels, strict=True):
            by_part.setdefault(part, {}).setdefault(label, []).append(names[index])
    return by_part, result.remarks


def classes(*names, **options):
    parts, _ = found(*names, **options)
    return {part: sorted(labels) for part, labels in parts.items()}


CATS_AND_DOGS = {"train": ["cat", "dog"], "test": ["cat", "dog"]}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("Training", "Testing"),
        ("train_images", "test_images"),
        ("train2017", "test2017"),
        ("trainset", "testset"),
        ("TRAIN", "TEST"),
        ("train-data", "test-data"),
        ("images_train", "images_test"),
        ("01_train", "02_test"),
        ("TrainingData", "TestData"),
        ("trn_train", "trn_holdout"),
    ],
)
@pytest.mark.parametrize("wrapper", ["", "dataset/", "archive/data/images/"])
def test_parts_by_words_in_their_names(train, test, wrapper):
    names = [f"{wrapper}{part}/{kind}/{n}.png" for part in (train, test) for kind in ("cat", "dog") for n in range(2)]
    if "trn" in train:  # a word that says nothing, in both names
        names = [name.replace("trn_", "") for name in names]
    parts, remarks = found(*names)
    assert {part: sorted(labels) for part, labels in parts.items()} == CATS_AND_DOGS
    assert all(
        test.removeprefix("trn_") in name for labels in [parts["test"]] for each in labels.values() for name in each
    )
    assert remarks == []


def test_parts_below_the_classes():
    names = numbered("cat/train", "cat/test", "dog/train", "dog/test")
    assert classes(*names) == CATS_AND_DOGS
    assert classes(*(name.replace("/test", "/val") for name in names)) == {
        "train": ["cat", "dog"],
        "validation": ["cat", "dog"],
    }


def test_parts_of_different_depths_are_kept_apart():
    names = numbered("data/train/cat", "data/train/dog", "test/cat", "test/dog")
    assert classes(*names) == CATS_AND_DOGS
    assert not any("test" in name for names in found(*names)[0]["train"].values() for name in names)


def test_parts_within_the_training_part():
    assert set(found(*numbered("training/train", "training/val", "testing"))[0]) == {"train", "validation", "test"}


def test_parts_glued_to_classes():
    names = numbered("train_cat", "train_dog", "test_cat", "test_dog")
    assert classes(*names) == CATS_AND_DOGS
    assert classes(*numbered("trainA", "trainB", "testA", "testB")) == {"train": ["a", "b"], "test": ["a", "b"]}
    assert classes(*numbered("trainA", "testA")) == {"train": [""], "test": [""]}
    # two words that no other folder has are classes: of a station and a tube
    assert classes(*numbered("train_station", "test_tube", "bus")) == {"all": ["bus", "test_tube", "train_station"]}


def test_parts_in_the_names_of_flat_files():
    parts, _ = found("train_1.png", "train_2.png", "test_1.png")
    assert parts == {"train": {"": ["train_1.png", "train_2.png"]}, "test": {"": ["test_1.png"]}}
    assert set(found("train_1.png", "car_2.png", "test_1.png")[0]) == {"all"}


@pytest.mark.parametrize("form", ["train_{}.png", "data/train/{}.png"])
def test_a_stray_file_does_not_pool_the_parts(form):
    train = [form.format(index) for index in range(20)]
    test = [form.replace("data/", "").replace("train", "test").format(index) for index in range(5)]
    parts, remarks = found(*train, *test, "cover.png")
    assert parts == {"train": {"": train}, "test": {"": test}}
    assert remarks == ["ignored 1 images outside the parts (cover.png)"]


def test_a_class_called_train_stays_one():
    assert classes(*numbered("bus", "car", "train")) == {"all": ["bus", "car", "train"]}
    names = [f"{part}/{name}" for part in ("train", "test") for name in numbered("bus", "car", "train")]
    assert classes(*names) == {"train": ["bus", "car", "train"], "test": ["bus", "car", "train"]}
    controls = [f"{part}/{name}" for part in ("train", "test") for name in numbered("control", "test")]
    assert classes(*controls) == {"train": ["control", "test"], "test": ["control", "test"]}


def test_a_folder_called_train_below_one_class_divides_nothing():
    names = numbered("bus", "car", "rail/train")
    assert classes(*names) == {"all": ["bus", "car", "rail"]}
    parts, remarks = found(*numbered("train/cat", "train/dog"), "cover.png")
    assert parts["train"].keys() == {"cat", "dog"}
    assert remarks == ["ignored 1 images outside the parts (cover.png)"]


def test_wrappers_are_no_classes():
    assert classes(*numbered("photos")) == {"all": [""]}
    assert classes(*numbered("a/b/cat", "a/b/dog")) == {"all": ["cat", "dog"]}
    names = [*numbered("train/n01/images", "train/n02/images"), *numbered("val/images")]
    assert classes(*names) == {"train": ["n01", "n02"], "validation": [""]}


def test_a_class_called_photo_is_one_in_every_part():
    names = numbered("train/photo", "train/sketch", "test/photo")
    assert classes(*names) == {"train": ["photo", "sketch"], "test": ["photo"]}
    assert classes(*numbered("train/images", "test/images")) == {"train": [""], "test": [""]}


def test_a_folder_for_every_image_gives_no_labels():
    parts, remarks = found(*(f"{number:03d}/image.png" for number in range(6)))
    assert parts["all"].keys() == {""}
    assert remarks == ["no labels, since each subfolder holds one"]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", "masks"),
        ("imgs", "masks"),
        ("JPEGImages", "SegmentationClass"),
        ("image", "label"),
        ("train", "train_masks"),
        ("scans", "annotations"),
        ("images/train", "labels/train"),
    ],
)
def test_masks_beside_images_are_left_out_and_counted(images, masks):
    parts, remarks = found(*numbered(images, masks))
    assert [name for labels in parts.values() for names in labels.values() for name in names] == numbered(images)
    assert remarks == [f"left out 5 images in {masks.split('/')[0]} (masks or labels beside the images)"]


def test_masks_in_the_images_folder_and_under_each_of_them():
    parts, remarks = found("1.png", "1_mask.png", "2.png", "2_mask.png", "the_mask.png")
    assert parts["all"][""] == ["1.png", "2.png", "the_mask.png"]
    assert "left out 2 images named after others (1_mask, ...)" in remarks[0]
    names = [
        name
        for case in ("a", "b", "c")
        for name in (f"{case}/images/{case}.png", f"{case}/masks/1.png", f"{case}/masks/2.png")
    ]
    parts, _ = found(*names)
    assert parts == {"all": {"": ["a/images/a.png", "b/images/b.png", "c/images/c.png"]}}


def test_classes_named_after_masks_stay():
    assert classes(*numbered("mask", "no_mask")) == {"all": ["mask", "no_mask"]}
    assert classes(*numbered("with_mask", "without_mask")) == {"all": ["with_mask", "without_mask"]}
    for names in (["ground", "sky", "water"], ["lie", "truth"], ["masks", "no_masks"], ["hats", "labels", "masks"]):
        assert classes(*numbered(*names)) == {"all": names}
        assert classes(*(name.replace("/", "/frame_00") for name in numbered(*names))) == {"all": names}


@pytest.mark.parametrize("masks", ["masks", "ground_truth", "GroundTruth", "ground-truth-images"])
def test_masks_are_told_by_the_names_that_they_share_with_the_images(masks):
    names = [f"{folder}/IMG_{number}.png" for folder in ("eyes", masks) for number in (8812, 8840, 9017)]
    parts, remarks = found(*names)
    assert parts == {"all": {"": names[:3]}}
    assert remarks == [f"left out 3 images in {masks} (masks or labels beside the images)"]


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", ".ipynb_checkpoints", ".thumbnails", "thumbnails", "#recycle"])
def test_folders_of_the_system_are_left_out_and_counted(tmp_path, name):
    tree(tmp_path, *numbered("cat", "dog"), *numbered(f"cat/{name}", f"dog/{name}", count=3))
    data = load_data(tmp_path)
    assert data.classes == ("cat", "dog")
    assert sum(map(len, (data.train, data.validation, data.test))) == 10
    assert f"left out 6 files in {name} (thumbnails or files of the system)" in data.note


def test_thumbnails_alone_are_what_there_is(tmp_path):
    assert without_system([("thumbnails", "1.png")]) == ([0], [])
    assert without_system([("@eaDir", "1.png")]) == ([], ["@eaDir"])


@pytest.mark.parametrize("name", ["thumbs", "previews", "Thumbnails"])
def test_a_class_called_thumbs_stays(name):
    def left(*names):
        return without_system([tuple(each.split("/")) for each in names])[1]

    assert left(*numbered(name, "fist", "palm"), "cover.png", "labels.csv") == []
    assert left(*numbered(f"train/{name}", "train/fist", "train/palm", f"test/{name}", "test/fist", "test/palm")) == []
    photos = ["IMG_8812", "IMG_8840", "IMG_9017"]
    assert left(*(f"{folder}/{photo}.jpg" for folder in ("trip", name) for photo in photos)) == [name] * 3
    assert left(*(f"{photo}.tif" for photo in photos), *(f"{name}/{photo}_thumb.jpg" for photo in photos)) == [name] * 3
    assert left(*numbered("cat", "dog", f"cat/{name}", count=3)) == [name] * 3
    assert left(*numbered("images", name, count=3)) == [name] * 3


def test_no_test_image_is_trained_on(tmp_path):
    written = tree(tmp_path, *numbered("training_set/cats", "training_set/dogs", "test_set/cats", "test_set/dogs"))
    data = load_data(tmp_path)
    assert data.classes == ("cats", "dogs")
    of_test = {content for name, content in written.items() if "test" in name}
    for split, inside in ((data.train, False), (data.validation, False), (data.test, True)):
        assert {image.numpy().tobytes() in of_test for image in split.x} == {inside}


def test_the_note_says_it_all_once(tmp_path):
    tree(tmp_path / "photos", *numbered("train/cats", "train/dogs", "val/cats", "val/dogs"), *numbered("train/@eaDir"))
    note = load_data(tmp_path / "photos").note
    assert note == (
        f"from images in {tmp_path / 'photos'}; 20 images of 8x8 pixels, RGB; 2 classes: cats (10), dogs (10); "
        "9/10/1 for training/validation/test; "
        "test is a tenth of the training part, drawn evenly over the classes with seed 0; "
        "left out 5 files in @eaDir (thumbnails or files of the system)"
    )
    assert note.count(str(tmp_path)) == 1


def test_many_classes_are_counted_and_not_listed(tmp_path):
    tree(tmp_path, *numbered(*(f"kind{index:02d}" for index in range(12)), count=2), "kind00/more.png", side=4)
    assert "; 12 classes of 2 to 3 examples each: kind00, kind01, " in load_data(tmp_path).note


@pytest.mark.parametrize(
    "form",
    [
        ["train=a", "test=b"],
        {"train": "a", "test": ["b"]},
        ["train=a/", "test=./b"],
        ["train=photos/a", "test=photos/b"],
        ["train={}/a", "test={}/b"],
    ],
)
def test_given_parts_overrule_names(tmp_path, form):
    tmp_path = tmp_path / "photos"
    written = tree(tmp_path, *numbered("a/train", "a/test", "b/x", "c"))
    data = load_data(tmp_path, parts=form if isinstance(form, dict) else [word.format(tmp_path) for word in form])
    assert {image.numpy().tobytes() for image in data.test.x} == {written[name] for name in numbered("b/x")}
    assert len(data.train) + len(data.validation) == 10
    assert data.classes == ("test", "train", "x")
    assert "ignored 5 images outside the parts (0.png, 1.png, 2.png, ...)" in data.note


def test_given_parts_may_be_named_below_the_folder_that_holds_everything():
    names = numbered("set/a", "set/b")
    forms: list[dict[str, list[str]]] = [{"train": ["a"], "test": ["b"]}, {"train": ["set/a"], "test": ["set/b"]}]
    for form in forms:
        assert found(*names, parts=form)[0] == {"train": {"": numbered("set/a")}, "test": {"": numbered("set/b")}}
    with pytest.raises(UsageError, match=r"no images are \(folders: set/a, set/b\); name another folder"):
        found(*names, parts={"train": ["c"]})


def test_masks_that_are_asked_for_are_read():
    names = numbered("images", "masks")
    assert found(*names, parts={"all": ["masks"]})[0] == {"all": {"": numbered("masks")}}
    assert found(*names, parts={"all": ["."]})[0] == {"all": {"": numbered("images")}}


def test_all_as_one_part_makes_parts_classes(tmp_path):
    tree(tmp_path, *numbered("train", "test"))
    data = load_data(tmp_path, parts=["all=."])
    assert data.classes == ("test", "train")
    assert len(data.train) == 8


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["train"], "parts has 'train'; write PART=FOLDER"),
        (["training=a"], "parts names 'training'; choose train, validation, test, all"),
        (["test=a"], "parts names no training part; give train=FOLDER"),
        (["all=a", "test=b"], "parts gives 'all' and others; give one or the other"),
        (["train=a", "test=z"], r"parts has test=z, where no images are \(folders: a, b\); name another folder"),
        (["train=a", "test=a/0.png"], "parts puts a/0.png into two; give each file one part"),
    ],
)
def test_parts_that_cannot_be(tmp_path, parts, message):
    tree(tmp_path, *numbered("a", "b"))
    with pytest.raises(UsageError, match=message):
        load_data(tmp_path, parts=parts)


def test_overrules_are_refused_where_they_say_nothing(tmp_path):
    tree(tmp_path, *numbered("a"))
    with pytest.raises(UsageError, match="layout is for NumPy arrays and HDF5, and .* holds images; leave it out"):
        load_data(tmp_path, layout="NCHW")
    with pytest.raises(UsageError, match="range is for files and folders, and digits is a named set; leave it out"):
        load_data("digits", range=(0, 16))
    with pytest.raises(UsageError, match="layout is 'NHX'; give each axis a letter"):
        load_data(tmp_path, layout="NHX")


def test_a_test_part_alone_is_refused(tmp_path):
    tree(tmp_path, *numbered("test/cat", "test/dog"))
    with pytest.raises(DataError, match="has a test part but no training part; add one"):
        load_data(tmp_path)
    assert load_data(tmp_path / "test").classes == ("cat", "dog")
