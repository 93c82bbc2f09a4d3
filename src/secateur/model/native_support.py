"""Which models the C kernels run, and the names that they use for the tensors of a block."""

from __future__ import annotations

from typing import Any

from secateur.model.families import FAMILIES, Family
from secateur.model.rotary import LENGTHENED, rotary_type
from secateur_runtime.errors import UnsupportedModelError

_LINEARS = ("q", "k", "v", "o", "gate", "up", "down")


def runs_natively(family: Family) -> bool:
    """Return whether a family has the blocks of Llama; norms of heads and biases may be added."""
    plain = family.attn_norms == ("input_layernorm",) and len(family.qkv) == 3 and len(family.gate_up) == 2
    return plain and not family.norm_offset and not family.scaled_embeddings


def check_native(ref: str, family: Family, config: Any) -> None:
    """Raise UnsupportedModelError for a model that the kernels cannot run.

    Its family, its activation or its rotary embedding may be missing. ref: the model, for the message.
    """
    if not runs_natively(family):
        known = ", ".join(name for name, row in FAMILIES.items() if runs_natively(row))
        raise UnsupportedModelError(
            f"the native backend runs {known}, and {ref} is {family.name}: use --backend torch or llamacpp"
        )
    kind = rotary_type(config)
    if kind in LENGTHENED:
        raise UnsupportedModelError(
            f"the native backend has no rotary embedding of the kind {kind!r}, which {ref} has: use --backend"
            " torch"
        )
    if config.hidden_act not in ("silu", "swish"):
        raise UnsupportedModelError(
            f"the native backend has no activation {config.hidden_act!r}, which {ref} has: use --backend"
            " torch"
        )


def native_names(family: Family, prefix: str) -> dict[str, str]:
    """Return tensor name -> the name that the kernels use: `q`, `q_bias`, `attn_norm` and so on.

    prefix: of the block's tensors. Biases are listed for every linear, whether the family has them or not.
    """
    modules = dict(zip(_LINEARS, (*family.qkv, family.o, *family.gate_up, family.down), strict=True))
    norms = {
        "attn_norm": family.attn_norms[0],
        "ffn_norm": family.ffn_norms[0],
        **dict(zip(("q_norm", "k_norm"), family.head_norms, strict=False)),
    }
    names = {f"{prefix}{module}.weight": name for name, module in (modules | norms).items()}
    return names | {f"{prefix}{module}.bias": f"{name}_bias" for name, module in modules.items()}
