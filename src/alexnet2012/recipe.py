"""Every number of 2012, each with its source.

Sources: ``P`` is the paper (Krizhevsky, Sutskever, Hinton, NIPS 2012) with its section; ``S`` is the authors' own
code and records of that year (``computerhistory/AlexNet-Source-Code``), net #145, the paper's net. ``ours`` marks
what neither states.

A field's default is the paper's value, so ``paper_recipe()`` is the defaults; ``source_recipe()`` lists where the
authors' records differ, one named field each; docs/fidelity.md holds both against the sources. An ablation is a changed
field too.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from alexnet2012.core.command_line import option
from alexnet2012.core.errors import InputError

CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")
FULLY_CONNECTED = ("fc6", "fc7", "fc8")
LAYERS = CONVOLUTIONS + FULLY_CONNECTED
CLASSES = 1000  # of ILSVRC-2012, P §2
POOLED = ("conv1", "conv2", "conv5")  # the layers with a max-pool behind them, P §3.5
MIDDLE = CONVOLUTIONS[1:]  # what P §7 removes one of
POOLED_SIZE = 6  # pixels that fc6 reads along each side: 224 -> conv1 55 -> 27 -> 13 -> 6


ABOVE_0, BELOW_1, FINITE = math.ulp(0.0), math.nextafter(1, 0), sys.float_info.max
BOUNDS = (  # least, most, the fields whose numbers lie between
    (1, 2, ("towers",)),
    (1, 2**16, ("kernels", "neurons")),
    (1, 32, ("kernel_sizes", "conv1_stride", "pool_size", "pool_stride", "lrn_size", "in_map_size")),
    (0, 32, ("paddings", "conv1_edge")),
    (ABOVE_0, 16, ("width",)),
    (1, 1024, ("image_size", "crop_size", "crop_offsets")),
    (1, 3, ("channels",)),
    (1, FINITE, ("batch_size", "epochs", "schedule_epochs", "plateau_patience", "shared_crop", "stuck_images")),
    (ABOVE_0, FINITE, ("lr", "lrn_k", "in_map_k", "drop_factor", "color_noise_divisor", "pixel_scale")),
    (0, FINITE, ("lrn_alpha", "lrn_beta", "in_map_alpha", "in_map_beta", "weight_std", "bias_lr", "color_noise")),
    (0, FINITE, ("weight_decay", "weight_decays", "warmup_epochs", "first_epoch", "subset_epochs", "plateau_drops")),
    (0, FINITE, ("min_lr", "min_delta")),
    (0, FINITE, ("drop_epochs", "conv1_drop_epochs", "conv1_frozen_epoch", "color_noise_end")),
    (0, BELOW_1, ("dropout", "momentum")),
    (0, 1, ("reflect",)),
    (ABOVE_0, 1, ("subset",)),
    (-FINITE, FINITE, ("biases", "pixel_offset")),
)
OF_LAYERS = ("kernels", "kernel_sizes", "paddings", "neurons", "weight_std", "biases")  # tuples of fixed length
MONITORS = ("error", "loss")
ACTIVATIONS = ("relu", "tanh", "sigmoid")
INITS = ("default", "xavier", "he", "normal")
AUGMENTATIONS = ("flip", "crop", "color")  # P §4.1
SWITCHES = ("width", "activation", "dropout", "init")  # fields of the net that a reference net may read


@dataclass(frozen=True)
class NetworkRecipe:
    """The net. Tuples over layers run in the order of ``LAYERS``; counts are per tower, before ``width``."""

    net: str = "2012"  # or one of network/reference, which reads none of the fields below but ``SWITCHES``
    towers: int = 2  # P §3.5
    kernels: tuple[int, ...] = (48, 128, 192, 192, 128)  # conv1..conv5, P §3.5
    kernel_sizes: tuple[int, ...] = (11, 5, 3, 3, 3)  # pixels, P §3.5
    paddings: tuple[int, ...] = (0, 2, 1, 1, 1)  # pixels on every side, S layers-145
    conv1_stride: int = 4  # pixels, P §3.5
    conv1_edge: int = 3  # pixels of zeros right and bottom: 55 = 1 + ceil((224 - 11) / 4), S layers-145
    neurons: tuple[int, ...] = (2048, 2048)  # fc6, fc7, P §3.5
    width: float = option(1.0, "multiplies kernels and neurons", "recipe", unset="the recipe's")  # ours
    meetings: tuple[str, ...] = ("conv3", "fc6", "fc7", "fc8")  # layers that read both towers, P §3.5
    without: tuple[str, ...] = ()  # middle layers left out; their pools stay, P §7
    activation: str = option(  # P §3.1
        "relu", "of every layer but the last (paper §3.1)", "variants", choices=ACTIVATIONS, unset="the recipe's"
    )
    pool_size: int = 3  # pixels, P §3.4
    pool_stride: int = 2  # pixels, P §3.4
    pool_rounds_up: bool = False  # a last window past the edge pools the pixels it has, S; else they stay unread, ours
    lrn: bool = True  # local response normalisation after conv1 and conv2, P §3.3
    lrn_size: int = 5  # adjacent kernels n, P §3.3
    lrn_k: float = 2.0  # P §3.3
    lrn_alpha: float = 1e-4  # P §3.3
    lrn_beta: float = 0.75  # P §3.3
    lrn_mean: bool = False  # divide alpha by n: P §3.3 sums, S does divide
    lrn1_before_relu: bool = False  # conv1: LRN on the linear output, ReLU after the pool
    in_map_norm: bool = False  # conv2: one more normalisation, inside each map, before the pool
    in_map_size: int = 5  # pixels, the window's side, S layers-145
    in_map_k: float = 1.0  # S layers-145
    in_map_alpha: float = 1e-3  # divided by the window's area, S layer-params-145
    in_map_beta: float = 0.75  # S layer-params-145
    dropout: float = option(  # of fc6 and fc7, no rescaling in training, P §4.2
        0.5, "share of the neurons that training drops (paper §4.2)", "variants", metavar="P", unset="the recipe's"
    )
    weight_std: tuple[float, ...] = (0.01,) * 8  # N(0, std), P §5
    biases: tuple[float, ...] = (0, 1, 0, 1, 1, 1, 1, 0)  # P §5
    init: str = option(  # P §5: N(0, weight_std)
        "normal", "initial weights of a reference net; default: PyTorch's", "variants",
        choices=INITS, unset="the recipe's",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Refuse what cannot be built. Raises InputError."""
        for layer, count in zip(LAYERS[:-1], self.kernels + self.neurons, strict=True):
            scaled = count * self.width
            if self.net == "2012" and (abs(scaled - round(scaled)) > 1e-9 or round(scaled) < 1):
                raise InputError(
                    f"--width {self.width:g}: {layer} would have {scaled:g} kernels or neurons a tower; "
                    f"choose a width that gives whole numbers (1/16, 0.25, 0.5, 1, ...)"
                )
        for name, known in (("activation", ACTIVATIONS), ("init", INITS)):
            if getattr(self, name) not in known:
                raise InputError(f"--{name} {getattr(self, name)}: must be one of {', '.join(known)}")
        if self.net == "2012" and self.init != "normal":
            raise InputError(
                f"--init {self.init}: the 2012 net's are normal, wider with --wide-init; name another --net"
            )
        for name in ("lrn_size", "in_map_size"):
            if getattr(self, name) % 2 == 0:
                raise InputError(f"{name} {getattr(self, name)}: the window is centred, so its size is odd (P §3.3)")
        if self.towers == 1 and self.meetings != NetworkRecipe.meetings:
            raise InputError("--one-tower: has no other tower to exchange with; leave --exchange-at out")
        if self.pool_rounds_up and "conv5" in self.without and not self.paddings[-1]:
            raise InputError(
                "--without conv5: in recipe source --no-overlap needs conv5, which turns 13x13 into 11x11 (net #147), "
                "so that fc6 reads 6x6; leave one of the two flags out"
            )
        if unknown := (set(self.meetings) - set(LAYERS[1:])) | (set(self.without) - set(MIDDLE)):
            raise InputError(f"recipe: {', '.join(sorted(unknown))} cannot be a meeting point or be left out")

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of this net in order: ``LAYERS`` less those left out."""
        return tuple(layer for layer in LAYERS if layer not in self.without)

    def outputs(self, layer: str) -> int:
        """Kernels or neurons of one tower in ``layer``, conv1 to fc7, after ``width``."""
        return round((self.kernels + self.neurons)[LAYERS.index(layer)] * self.width)

    def left_out_before(self, layer: str) -> tuple[str, ...]:
        """Layers left out between ``layer`` and the one that it reads, backwards."""
        return tuple(itertools.takewhile(self.without.__contains__, reversed(LAYERS[: LAYERS.index(layer)])))

    def left_out_behind(self, layer: str) -> tuple[str, ...]:
        """Layers left out between ``layer`` and the next."""
        return tuple(itertools.takewhile(self.without.__contains__, LAYERS[LAYERS.index(layer) + 1 :]))

    def reads_both_towers(self, layer: str) -> bool:
        """Whether ``layer`` reads both towers. A left-out meeting point passes its meeting to the next layer."""
        return self.towers > 1 and not {layer, *self.left_out_before(layer)}.isdisjoint(self.meetings)

    @property
    def starts_flat(self) -> bool:
        """Whether conv3 to conv5 have the paper's N(0, 0.01), so that the loss stays near ln(classes) at first.

        Over photographs fc8 then varies by 1 % of the spread of its values, with S's 0.03 by 12 %.
        """
        return self.net == "2012" and self.weight_std == NetworkRecipe.weight_std

    def initial_std(self, layer: str) -> float:
        """Standard deviation of ``layer``'s initial weights. A narrow net needs 1/sqrt(width) behind conv1."""
        scale = 1.0 if layer == "conv1" else self.width**-0.5
        return self.weight_std[LAYERS.index(layer)] * scale


@dataclass(frozen=True)
class OptimizationRecipe:
    """The training: stochastic gradient descent with the learning rate inside the velocity (P §5)."""

    optimizer: str = "paper"  # the learning rate in the velocity, P §5; or "sgd": torch.optim.SGD
    batch_size: int = option(128, "images a step, over all processes", "recipe", unset="the recipe's")  # P §5
    epochs: int = option(90, "passes over the training images", "recipe", unset="the recipe's")  # P §5
    lr: float = option(0.01, "initial learning rate of the weights", "recipe", unset="the recipe's")  # P §5
    bias_lr: float = 0.01  # P §5: equal for all layers
    bias_lr_held: bool = False  # the biases' learning rate stays while the weights' falls
    momentum: float = 0.9  # P §5
    weight_decay: float = option(0.0005, "of every layer", "recipe", unset="the recipe's")  # not of biases: P §5, S
    weight_decays: tuple[float, ...] = ()  # instead of it, one for each layer with weights
    drop_factor: float = 10.0  # P §5
    schedule_epochs: int = 90  # the run that the epochs below are epochs of; a run of other length scales them, P §5
    warmup_epochs: float = option(  # ours, for large batches
        0.0, "epochs over which the learning rate rises from 0; 2012 had none", "recipe", unset="the recipe's"
    )
    first_epoch: int = 0  # number of the first epoch in the fields below: a drop at 25 comes after 25 epochs; S: 1
    drop_epochs: tuple[int, ...] = (25, 51, 79)  # the first at each lower value, S layer-params-145; P §5: three drops
    conv1_drop_epochs: tuple[int, ...] = ()  # further drops of conv1 alone
    conv1_frozen_epoch: int | None = None  # from here conv1 is not updated, its velocity untouched
    plateau_drops: int = 3  # P §5
    plateau_patience: int = 5  # epochs without a better ``monitor`` before a drop, ours (P §5 gives none)
    min_lr: float = option(0.0, "that drops end at; 2012 had none", "recipe", unset="the recipe's")  # ours
    monitor: str = option(  # P §5
        "error", "of the validation images: decides on drops of a plateau, best.pt and --early-stop", "recipe",
        choices=MONITORS, unset="the recipe's",
    )  # fmt: skip
    min_delta: float = option(  # ours
        0.0, "smallest improvement that a plateau and --early-stop count, percent or nats", "recipe",
        unset="the recipe's",
    )  # fmt: skip
    new_order: bool = True  # of the images in each epoch, ours; S: one order for all epochs
    short_batch: bool = False  # whether the images that an epoch has left over make a batch of their own, ours; S: yes
    subset: float = 1.0  # share of the training images, drawn by the seed, that ...
    subset_epochs: int = 0  # ... the first epochs of ``schedule_epochs`` train on; the others train on all
    stuck_images: int = 1_000_000  # loss still near ln(classes) after these is worth a warning, ours

    def __post_init__(self) -> None:
        if self.warmup_epochs >= self.epochs:
            raise InputError(f"--warmup-epochs {self.warmup_epochs:g}: must be below the {self.epochs} epochs")
        if self.min_lr > self.lr:
            raise InputError(f"--min-lr {self.min_lr:g}: must not be above --lr {self.lr:g}")
        if self.monitor not in MONITORS:
            raise InputError(f"--monitor {self.monitor}: must be one of {', '.join(MONITORS)}")


@dataclass(frozen=True)
class ImageRecipe:
    """What happens to an image between the disk and conv1. Pixels are 0..255 throughout."""

    image_size: int = 256  # pixels, shorter side, then the central square, P §2
    crop_size: int = 224  # pixels, P §3.5, §4.1
    crop_offsets: int = 32  # offsets a crop can have along one axis: 0..31, P §4.1 (2048 = 32 x 32 x 2)
    reflect: float = 0.5  # probability of the horizontal reflection, P §4.1
    shared_crop: int = 1  # consecutive images that share one crop and reflection, P §4.1 as it reads; S: 32
    mean_subtracted: bool = True  # the training set's mean image, P §2
    mean_central: bool = False  # subtract the mean's central crop from every crop; False: the crop's own part, P §2
    color_noise: float = 0.1  # standard deviation of alpha_i, times sqrt(lambda_i); 0: none, P §4.1, S
    color_noise_divisor: float = 1.0  # the noisy image is divided by it
    color_noise_end: int | None = None  # epoch, of ``schedule_epochs``, from which there is no noise
    channels: int = 3  # 1: images are grey
    pixel_offset: tuple[float, ...] = (0.0,)  # subtracted from every pixel, a number for all channels or one each
    pixel_scale: tuple[float, ...] = (1.0,)  # every pixel is divided by it

    @property
    def first_offset(self) -> int:
        """Pixels of the first crop: the offsets lie in the middle of the image, so that one of them is the centre."""
        return (self.image_size - self.crop_size - self.crop_offsets + 1) // 2

    @property
    def augmentations(self) -> set[str]:
        """Those of ``AUGMENTATIONS`` that training has."""
        has = (self.reflect > 0, self.crop_offsets > 1, self.color_noise > 0)
        return set(itertools.compress(AUGMENTATIONS, has))

    @property
    def augmented(self) -> bool:
        """Whether training crops or reflects images: a net trained without has one view of a test image."""
        return bool(self.augmentations & {"flip", "crop"})

    @property
    def uses_statistics(self) -> bool:
        """Whether anything of the training set must be measured first."""
        return self.mean_subtracted or self.color_noise > 0

    def __post_init__(self) -> None:
        if self.uses_statistics and self.image_size > ImageRecipe.image_size:
            raise InputError(f"image_size {self.image_size}: sums for the mean image are exact up to 256 pixels")
        if self.crop_size + self.crop_offsets - 1 > self.image_size:
            raise InputError(
                f"crop_size {self.crop_size}: at {self.crop_offsets} offsets does not fit images of {self.image_size}"
            )
        if self.channels == 2 or (self.channels == 1 and self.uses_statistics):
            raise InputError(
                f"channels {self.channels}: must be 3; grey images have no mean image or --augment color here"
            )
        for name in ("pixel_offset", "pixel_scale"):
            if len(getattr(self, name)) not in (1, self.channels):
                raise InputError(f"{name} has {len(getattr(self, name))} values, must have 1 or {self.channels}")


@dataclass(frozen=True)
class Recipe(NetworkRecipe, OptimizationRecipe, ImageRecipe):
    """One experiment of 2012: the net, its training and its images."""

    name: str = "paper"

    def __post_init__(self) -> None:
        """Refuse what cannot be built or trained. Raises InputError."""
        refuse_out_of_bounds(self)
        NetworkRecipe.__post_init__(self)
        OptimizationRecipe.__post_init__(self)
        ImageRecipe.__post_init__(self)
        if self.net == "2012":
            refuse_other_geometry(self)

    def described(self) -> dict[str, Any]:
        """The fields by name; of a reference net those alone that it reads."""
        of_net = {field.name for field in dataclasses.fields(NetworkRecipe)} - {"net", "towers"}
        unread = set() if self.net == "2012" else of_net - set(SWITCHES)
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in unread}

    def with_lr(self, lr: float) -> Recipe:
        """The same recipe at another learning rate; the biases' keeps its ratio to the weights'."""
        return dataclasses.replace(self, lr=lr, bias_lr=self.bias_lr * lr / self.lr)

    def with_images(self, side: int, augmentations: Collection[str]) -> Recipe:
        """The same recipe reading images of ``side`` pixels with exactly these of ``AUGMENTATIONS``.

        What it has not of its own is the paper's (P §4.1): crops come out of images larger by 8/7, as 256 is than 224.
        """
        paper, own, crops = ImageRecipe(), self.augmentations, "crop" in augmentations
        image_size, offsets = self.image_size, self.crop_offsets if crops else 1
        if side != self.crop_size or (crops and "crop" not in own):
            image_size = side * 8 // 7 if crops else side
            offsets = image_size - side + 1
        changes: dict[str, Any] = {"crop_size": side, "image_size": image_size, "crop_offsets": offsets}
        if "flip" not in augmentations or "flip" not in own:
            changes["reflect"] = paper.reflect if "flip" in augmentations else 0.0
        if "color" not in augmentations or "color" not in own:
            changes["color_noise"] = paper.color_noise if "color" in augmentations else 0.0
            changes["color_noise_divisor"] = paper.color_noise_divisor
        return dataclasses.replace(self, **changes)

    def varied(self, *variants: str) -> Recipe:
        """The same recipe with ``variants`` of the net or its training, keys of ``VARIANTS``.

        Layers left out add up. Raises InputError when two of them want the same field to differ, or when this recipe
        has one already.
        """
        changes: dict[str, Any] = {}
        for variant in variants:
            for name, value in variant_fields(variant, self.name).items():
                if getattr(self, name) == value != getattr(Recipe, name):
                    raise InputError(
                        f"{VARIANTS[variant].flag or f'--{variant}'}: the recipe has it already; leave it out"
                    )
                if name == "without":
                    changes[name] = (*changes.get(name, ()), *value)
                elif changes.setdefault(name, value) != value:
                    raise InputError(f"{' and '.join(variants)}: both change {name}; run one of them at a time")
        return dataclasses.replace(self, **changes)


def refuse_out_of_bounds(recipe: Recipe) -> None:
    """Raises InputError for a field with a number outside its bounds, or of another length than the layers have."""
    for name in OF_LAYERS:
        if len(getattr(recipe, name)) != len(getattr(Recipe, name)):
            raise InputError(f"{name}: has {len(getattr(recipe, name))} values, not {len(getattr(Recipe, name))}")
    flags = {field.name for field in dataclasses.fields(recipe) if field.metadata}
    for least, most, names in BOUNDS:
        low = "above 0" if least == ABOVE_0 else f"at least {least:g}"
        high = " and below 1" if most == BELOW_1 else f" and at most {most:g}" if most < FINITE else ""
        for name in names:
            value = getattr(recipe, name)
            numbers = value if isinstance(value, tuple) else () if value is None else (value,)
            if wrong := [number for number in numbers if not least <= number <= most]:
                flag = f"--{name.replace('_', '-')}" if name in flags else name
                raise InputError(f"{flag} {wrong[0]:g}: must be {low}{high}")


def refuse_other_geometry(recipe: Recipe) -> None:
    """Raises InputError where fc6 would not read maps of 6x6, or images have not the three channels of conv1."""
    side = recipe.crop_size + recipe.conv1_edge
    for layer, size, padding in zip(CONVOLUTIONS, recipe.kernel_sizes, recipe.paddings, strict=True):
        if layer in recipe.layers:
            side = (side + 2 * padding - size) // (recipe.conv1_stride if layer == "conv1" else 1) + 1
        if layer in POOLED:
            side = pooled_side(side, recipe.pool_size, recipe.pool_stride, recipe.pool_rounds_up)
        if side < 1:
            raise InputError(f"recipe: images of {recipe.crop_size} pixels leave nothing behind {layer}")
    if side != POOLED_SIZE or recipe.channels != 3:
        raise InputError(
            f"recipe: images of {recipe.crop_size} pixels and {recipe.channels} channels reach fc6 as {side}x{side}, "
            f"not 3 channels as {POOLED_SIZE}x{POOLED_SIZE}"
        )


def side_behind(side: int, *windows: tuple[int, int, int]) -> int:
    """A map's side behind layers of (kernel size, stride, padding), of ``side`` before. Raises InputError for none."""
    first = side
    for size, stride, padding in windows:
        side = (side + 2 * padding - size) // stride + 1
        if side < 1:
            raise InputError(f"--image-size {first}: leaves nothing behind a layer of {size}x{size}; give a larger one")
    return side


def pooled_side(side: int, size: int, stride: int, rounds_up: bool) -> int:
    """Windows of ``size`` every ``stride`` pixels along ``side``: whole ones, or all that begin inside it."""
    if rounds_up:
        return min(-(-(side - size) // stride), (side - 1) // stride) + 1
    return (side - size) // stride + 1


RENAMED: dict[str, str] = {}  # a field's name in an earlier version -> its name today
REMOVED: dict[str, Any] = {}  # a field that an earlier version had -> the value it meant what is done today with


def current_fields(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's fields, as any version recorded them, by today's names; those not recorded have today's defaults."""
    named = {RENAMED.get(name, name): value for name, value in recorded.items()}
    return {name: value for name, value in named.items() if name not in REMOVED or value != REMOVED[name]}


WIDE = (0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01)  # initial deviations, S layers-145


def paper_recipe(**changes: Any) -> Recipe:
    """The paper's recipe; where the paper is silent, the authors' records. ``changes`` replace fields."""
    return Recipe(**changes)


def source_recipe(**changes: Any) -> Recipe:
    """The recipe of the authors' records (S #145): exactly these fields differ from the paper's."""
    differences: dict[str, Any] = {
        "name": "source",
        "lrn_mean": True,  # S: scale /= size, so alpha is 2e-5 in effect
        "lrn1_before_relu": True,  # S layers-145
        "in_map_norm": True,  # S layers-145
        "pool_rounds_up": True,  # S layer.py; pools of 3x3/2 come out even
        "weight_std": WIDE,  # S layers-145
        "epochs": 91,  # S layer-params-145
        "schedule_epochs": 91,  # S layer-params-145
        "bias_lr": 0.02,  # S layer-params-145
        "bias_lr_held": True,  # S layer-params-145
        "conv1_drop_epochs": (67,),  # S layer-params-145
        "conv1_frozen_epoch": 72,  # S layer-params-145
        "first_epoch": 1,  # S convdata: epochs count from 1
        "new_order": False,  # S convdata_jpeg: the files of batches are read in one order
        "short_batch": True,  # S src/data.cu: the last batch is what is left; src/layer.cu: its gradient is its mean
        "shared_crop": 32,  # S convdata_jpeg
        "crop_offsets": 33,  # S convdata_jpeg: offsets 0..32
        "mean_central": True,  # S convdata_jpeg
        "color_noise_divisor": 1.1,  # S convdata_jpeg: 1 + 0.1
        "color_noise_end": 67,  # S layer-params-145
    }
    return Recipe(**{**differences, **changes})


RECIPES = {"paper": paper_recipe, "source": source_recipe}

COLORS_2014 = {  # of ILSVRC's training images, RGB of 0..255, as the authors' later cuda-convnet2 prepares them
    "mean color": (127.3, 119.7, 104.9),
    "sqrt(eigenvalues)": (121.8, 37.1, 19.7),
    "first eigenvector": (0.564, 0.576, 0.592),  # the signs as data/statistics.py sets them
    "second eigenvector": (0.713, 0.024, -0.701),
    "third eigenvector": (-0.418, 0.817, -0.397),
}

VAL_2012, TEST_2010 = "ILSVRC-2012 validation", "ILSVRC-2010 test"


@dataclass(frozen=True)
class Result2012:
    """A result of 2012: softmax outputs of ``nets`` nets averaged, over ``crops`` crops an image.

    The single nets are the authors' #145, which ``--recipe source`` follows, and #155, the same net with another
    schedule. Nobody is recorded as having trained the paper's text to the letter.
    """

    data: str
    nets: int
    crops: int
    top1_error: float  # percent
    top5_error: float  # percent
    paper: str  # where the paper gives it
    record: str = ""  # the authors' net; empty: not said which
    loss: float | None = None  # nats, of the averaged softmax outputs, by the authors' record
    note: str = ""  # how these nets were not like the others

    @property
    def figures(self) -> tuple[float, float, float | None]:
        """Top-1 and top-5 error and loss."""
        return self.top1_error, self.top5_error, self.loss


RESULTS_2012 = (
    Result2012(VAL_2012, 1, 10, 40.7, 18.2, "table 2", "#145", 1.741473),  # S: 40.664, 18.210
    Result2012(VAL_2012, 5, 10, 38.1, 16.4, "table 2"),  # "similar" nets (P §6)
    Result2012(VAL_2012, 7, 10, 36.7, 15.4, "table 2", note="two of them pre-trained on ImageNet 2011"),  # P §6
    Result2012(  # S layer-params-155: 42.653, 19.965; its net, layers-153, differs from #145's in no number
        VAL_2012, 1, 1, 42.7, 20.0, "", "#155", 1.861853, "#145's net with a schedule that falls exponentially"
    ),
    Result2012(TEST_2010, 1, 10, 37.5, 17.0, "table 1", "#145", 1.614660),  # S: 37.473, 16.999
    Result2012(TEST_2010, 1, 1, 39.0, 18.3, "§4.1", "#145", 1.706031),  # S: 39.025, 18.295
)


FIGURE_1_ERROR = 25.0  # percent of training error, CIFAR-10, P figure 1
FIGURE_1_RATIO = 6  # epochs until then of tanh over those of ReLU, P figure 1


def result_2012(nets: int, crops: int) -> Result2012 | None:
    """What 2012 measured with as many nets and crops on ILSVRC-2012's validation set."""
    asked = (VAL_2012, nets, crops)
    return next((result for result in RESULTS_2012 if (result.data, result.nets, result.crops) == asked), None)


@dataclass(frozen=True)
class Difference2012:
    """How much worse than the base net a variant was in 2012: percentage points of error; None: no figure given."""

    top1: float | None = None
    top5: float | None = None
    said: str = ""  # before a figure that is not exact, or instead of one
    paper: str = ""  # where the paper says it
    record: str = ""  # the authors' net
    data: str = ""  # measured on, with ten crops; empty: not said
    loss: float | None = None  # nats of the variant, not less the base net's
    unlike: str = ""  # how the net of 2012 was not, or not compared with, what is run here
    alike_in: str = ""  # the recipe whose variant is that net all the same

    @property
    def figures(self) -> tuple[float | None, float | None, float | None]:
        """Top-1 error, top-5 error and loss, each above the base net's on the same data."""
        base = next((one.loss for one in RESULTS_2012 if (one.data, one.nets, one.crops) == (self.data, 1, 10)), None)
        return self.top1, self.top5, None if self.loss is None or base is None else self.loss - base

    def unlike_in(self, recipe: str) -> str:
        """How it compares unlike things when the variant is that of ``recipe``."""
        return "" if recipe == self.alike_in else self.unlike


@dataclass(frozen=True)
class Variant:
    """A net, or its training, in which something differs from the base net of the same recipe: an ablation."""

    help: str
    changes: dict[str, Any]  # fields of the recipe
    in_2012: Difference2012
    in_source: dict[str, Any] = field(default_factory=dict)  # further changes, in recipe ``source``
    flag: str = ""  # that asks for it; empty: two dashes and its name


VARIANTS = {
    "no-lrn": Variant(
        "no local response normalisation (paper §3.3)",
        {"lrn": False},  # S #148 (the in-map normalisation goes too)
        Difference2012(  # S: 42.034, 19.362
            1.4,
            1.2,
            paper="§3.3",
            record="#148",
            data=VAL_2012,
            loss=1.822358,
            unlike="#148 lacks the three normalisations of #145, where recipe paper has two",
            alike_in="source",
        ),
    ),
    "no-overlap": Variant(
        "pooling windows of 2x2 that do not overlap (paper §3.4)",
        {"pool_size": 2},  # "of equivalent dimensions": 27, 13, 6, an odd map's last row unread
        Difference2012(  # S: 41.058, 18.510
            0.4,
            0.3,
            paper="§3.4",
            record="#147",
            data=VAL_2012,
            loss=1.757644,
            unlike="#147's pools round up and its conv2 and conv5 pad less",
            alike_in="source",
        ),
        {"paddings": (0, 1, 1, 1, 0)},  # S layers-147: 28, 26 -> 13, 11 -> 6
    ),
    "no-exchange": Variant(
        "towers that exchange activations only before the last layer",
        {"meetings": ("fc8",), "kernels": (48, 160, 192, 192, 128), "neurons": (4096, 2048)},  # S #150
        Difference2012(1.2, 1.1, record="#150", data=VAL_2012, loss=1.811173),  # S: 41.828, 19.330
    ),
    "exchange-at-conv4": Variant(
        "towers that exchange activations before conv4 instead of conv3",
        {"meetings": ("conv4", "fc6", "fc7", "fc8")},  # S #132, #133
        Difference2012(
            said="worse",
            record="#133",
            data=VAL_2012,
            unlike="#133 is an older net, stopped at epoch 50, and is compared with #131",
        ),
        flag="--exchange-at conv4",
    ),
    "one-tower": Variant(
        "the paper's one-GPU net (paper §3.2)",
        {"towers": 1, "kernels": (48, 128, 192, 192, 256), "neurons": (4096, 4096)},  # its footnote; S #145-half
        Difference2012(1.7, 1.2, paper="§3.2", record="#145-half", data=TEST_2010, loss=1.702802),  # S: 39.168, 18.229
    ),
    **{
        f"without-{layer}": Variant(
            f"{layer} left out (paper §7)",
            {"without": (layer,)},
            Difference2012(2.0, said="about", paper="§7"),
            flag=f"--without {layer}",
        )
        for layer in MIDDLE
    },
    "no-color-noise": Variant(
        "no noise on the colours of training images (paper §4.1)",
        {"color_noise": 0.0, "color_noise_divisor": 1.0},
        Difference2012(1.0, said="over", paper="§4.1"),
    ),
    "no-dropout": Variant(
        "no dropout in fc6 and fc7 (paper §4.2)", {"dropout": 0.0}, Difference2012(said="overfits", paper="§4.2")
    ),
    "tanh": Variant(
        "tanh instead of ReLU (paper §3.1)",
        {"activation": "tanh"},
        Difference2012(said="slower", paper="§3.1", data="CIFAR-10", unlike="a net of four layers"),
        flag="--activation tanh",
    ),
    "wide-init": Variant(
        "initial weights of N(0, 0.03) in conv3 to conv5, as in recipe source (2012 source, layers-145)",
        {"weight_std": WIDE},  # one step from ``paper`` to ``source``
        Difference2012(said="not trained alone"),
    ),
}


def variant_fields(variant: str, recipe: str) -> dict[str, Any]:
    """The fields that ``variant`` changes in the recipe of that name."""
    return VARIANTS[variant].changes | (VARIANTS[variant].in_source if recipe == "source" else {})


def whose(figure: Result2012 | Difference2012) -> str:
    """The place in the paper that gives a figure, and the authors' net that it is of."""
    parts = [f"paper {figure.paper}"] * bool(figure.paper) + [f"authors' {figure.record}"] * bool(figure.record)
    return ", ".join(parts)
