"""Which models of the catalog this machine can hold: the memory need by the same function as of a file that is here."""

from joulebox.catalog import CatalogModel, catalog
from joulebox.node.gguf import Header
from joulebox.node.models import PROCESS_BYTES, memory_need_bytes


def need_bytes(model: CatalogModel, context_tokens: int) -> int | None:
    """What loading a model of the catalog takes at most; `None` where the catalog does not know its size or shape."""
    shape = model.shape
    if shape is None or model.size_bytes is None:
        return None
    context = min(context_tokens, model.context_tokens or context_tokens)
    header = Header(
        architecture=model.family,
        name=model.id,
        quantization=model.quantization,
        context_tokens=context,
        block_count=shape.layers,
        embedding_length=shape.width,
        head_count=shape.kv_heads,
        head_count_kv=shape.kv_heads,
        key_length=shape.head_length,
        value_length=shape.head_length,
        vocabulary=shape.vocabulary,
    )
    return memory_need_bytes(header, model.size_bytes, context)


def fits(model: CatalogModel, context_tokens: int, room_bytes: int) -> bool | None:
    """Whether a model fits `room_bytes` of memory; `None` where the catalog knows too little to tell."""
    need = need_bytes(model, context_tokens)
    if need is not None:
        return need <= room_bytes
    if model.size_bytes is not None and model.size_bytes + PROCESS_BYTES > room_bytes:
        return False
    return None


def largest_fitting(context_tokens: int, room_bytes: int) -> CatalogModel | None:
    """The model of the catalog that needs most and still fits, of those that come without asking anybody."""
    needs = [(need_bytes(model, context_tokens), model) for model in catalog() if not model.gated]
    fitting = [(need, model.id, model) for need, model in needs if need is not None and need <= room_bytes]
    return max(fitting, default=(0, "", None))[2]
