"""Facts about each data set, without loading."""

from dataclasses import dataclass, field

IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
UNKNOWN = (
    "These files are not a release known to this package (checksums differ): "
    "whether their train/test partition is the published one is not known."
)
FASHION_NOTE = (
    "NOT the original train/test partition: the 60,000 + 10,000 images (6,000 + 1,000 per class) are divided "
    "differently from the published files; the first published training image, say, is in this test part. "
    "Nor are they exactly the published 70,000 images: their pixels sum to 4,005,470,023, against "
    "4,004,583,251 by the published means of the original parts. 10 distinct images occur in both parts. "
    "Accuracies are not comparable with those published for Fashion-MNIST; for these, name the folder of the "
    "original files or use download=true."
)


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about one data set.

    Attributes:
        name: name in settings and checkpoints.
        shipped: name of the shipped file; empty for generated data.
        size: side of the shipped images in pixels, or number of features.
        classes: names of the classes, by label.
        origin: source of the data.
        licence: terms of use.
        sha256: content hash of the shipped file, or of the generated samples.
        crop: number of pixels removed from each side before resizing.
        mirrors: base addresses of the published files.
        md5: MD5 of the gzipped published files, in the order of `IDX_NAMES`.
        releases: note about each known release, by the MD5 of its four uncompressed files.
    """

    name: str
    shipped: str
    size: int
    classes: tuple[str, ...]
    origin: str
    licence: str
    sha256: str
    crop: int = 0
    mirrors: tuple[str, ...] = ()
    md5: tuple[str, ...] = ()
    releases: dict[tuple[str, ...], str] = field(default_factory=dict)


DIGIT_NAMES = tuple(str(digit) for digit in range(10))

MNIST = DatasetInfo(
    name="mnist",
    shipped="mnist16.npz",
    size=16,
    classes=DIGIT_NAMES,
    origin="MNIST handwritten digits, Y. LeCun, C. Cortes and C. J. C. Burges (1998), "
    "derived from NIST Special Databases 1 and 3",
    licence="CC BY-SA 3.0 (as commonly stated; the authors' page is no longer available)",
    sha256="cf519020d6fca5313af0605a9f30727a57cec7673bfff397269f20b43dd80095",
    crop=2,
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    md5=(
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    releases={
        (
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ): "The original train/test partition: all four files are bit for bit the published ones."
    },
)

FASHION = DatasetInfo(
    name="fashion",
    shipped="fashion16.npz",
    size=16,
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    origin="Fashion-MNIST, Zalando SE; H. Xiao, K. Rasul and R. Vollgraf (2017), arXiv:1708.07747",
    licence="MIT, Copyright (c) 2017 Zalando SE",
    sha256="90e895e7ff1e510cfcbd576d68a978e043f679e4e55c12ea04914060ec24ef87",
    mirrors=(
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    md5=(
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    releases={
        (
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ): "The original train/test partition: all four files are bit for bit the published ones.",
        (
            "61afd33790081282116ce133c67c4c5f",
            "3e05d8b3664de2faa8305cfef489636e",
            "3cbe85174bd7223c37f61988980875c3",
            "25617aea7b2c050f88ab9d84070fbb13",
        ): FASHION_NOTE,
    },
)

DIGITS = DatasetInfo(
    name="digits",
    shipped="digits8.npz",
    size=8,
    classes=DIGIT_NAMES,
    origin="Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak (1998), "
    "UCI Machine Learning Repository, doi:10.24432/C50P49; the 1,797 images of its test file, "
    "as distributed with scikit-learn",
    licence="CC BY 4.0",
    sha256="7929b5c9ff20c670b1875242ebeb44dfa9fc60f0b366cba3c2fe6b73ec4cc3b2",
)

YIN_YANG = DatasetInfo(
    name="yin_yang",
    shipped="",
    size=4,
    classes=("yin", "yang", "dot"),
    origin="The Yin-Yang dataset, L. Kriener, J. Göltz and M. A. Petrovici (2022), arXiv:2102.08211; generated",
    licence="none needed: points drawn at random by code of this package",
    sha256="81b129b53a2e0f56e945d7a98cbaed7ab130e9687d3deee5b0595755918bdb9a",
)

SPOKEN_DIGITS = DatasetInfo(
    name="spoken_digits",
    shipped="spoken_digits70.npz",
    size=70,
    classes=(
        *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
        *("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
    ),
    origin="synthetic voices of espeak-ng 1.51, converted to spikes by the model of the inner ear of B. Cramer, "
    "Y. Stradmann, J. Schemmel and F. Zenke (2022), arXiv:1910.07407; made by code of this package",
    licence="Apache-2.0, as this package; the licence of espeak-ng, GPL-3.0, does not extend to what it says",
    sha256="ef601af6ba617f09c66acd428524c662fa977adfbc490c7828397710f87f799d",
)

CATALOGUE = {info.name: info for info in (MNIST, FASHION, DIGITS, YIN_YANG, SPOKEN_DIGITS)}
