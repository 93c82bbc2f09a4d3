"""Models whose blocks differ in width: how their config says so, and the classes that load them.

transformers has no config for such a model, so its `model_type` is one that stock transformers does not know:
it asks for remote code instead of loading something else. Importing `secateur` makes the type known, and no
remote code is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from secateur.model import reshape
from secateur.model.families import BASE_KEY, FAMILIES, SHAPES_KEY, Family
from secateur.model.transformers_model import transformers_config
from secateur_runtime.decoder.block_shape import BlockShape

MODULE = "modeling_secateur"
_TYPE_PREFIX = "secateur_"
# Lists in a config with one entry for each block.
_PER_BLOCK = ("layer_types", "no_rope_layers")

_TEMPLATE = '''
class SecateurConfig({config}):
    """{config} with the widths of each block in `{shapes}`."""

    model_type = "{model_type}"

    def __init__(self, per_layer_config=None, hidden_size=None, **fields):
        # per_layer_config mirrors the widths for other tools; transformers itself would refuse to read one
        # that differs by layer.
        super().__init__(**fields, **plain_width(fields))
        self.hidden_size = hidden_size or self.hidden_size

    def validate(self):
        with plain_widths(self):
            super().validate()


class SecateurForCausalLM({architecture}):
    """{architecture} with blocks of the widths that its config lists."""

    config_class = SecateurConfig

    def __init__(self, config):
        super().__init__(config)
        reshape_blocks(self, config.{shapes}, {norms})
'''


def pruned_config(
    config: Mapping[str, Any],
    shapes: Sequence[BlockShape],
    alive: Sequence[int],
    hidden_size: int | None = None,
) -> dict[str, Any]:
    """Return the config of a model whose surviving blocks `alive` (old indices) have the widths `shapes`.

    hidden_size: number of channels that survive; all of them if not given.
    Equal widths give a stock config, unless transformers' own class refuses them (some want heads that divide
    `hidden_size`); others list the widths and name the module to load them with.
    """
    changed = {
        key: value for key, value in config.items() if key not in (SHAPES_KEY, "per_layer_config", "auto_map")
    }
    changed["num_hidden_layers"] = len(shapes)
    for key in _PER_BLOCK:
        if isinstance(changed.get(key), list):
            changed[key] = [changed[key][index] for index in alive]
    if hidden_size:
        changed |= _fewer_channels(config, hidden_size)
    # Never to be worked out from hidden_size again.
    changed["head_dim"] = max(shape.head_dim for shape in shapes)
    family = FAMILIES[changed.pop(BASE_KEY, changed["model_type"])]
    if len(set(shapes)) == 1 and shapes[0].n_heads and shapes[0].intermediate_size:
        changed |= _widths(shapes[0])
        stock = {**changed, "model_type": family.name, "architectures": [family.architecture]}
        if _is_taken(stock):
            return stock
    return {**changed, **_unequal(family, shapes)}


def _fewer_channels(config: Mapping[str, Any], hidden_size: int) -> dict[str, Any]:
    """Return what changes with the number of channels.

    See `secateur.model.views.hidden_channels` for the epsilon.
    """
    epsilon = transformers_config(config).rms_norm_eps
    return {"hidden_size": hidden_size, "rms_norm_eps": epsilon * config["hidden_size"] / hidden_size}


def _is_taken(stock: Mapping[str, Any]) -> bool:
    from huggingface_hub.errors import StrictDataclassClassValidationError
    from transformers import AutoConfig

    try:
        AutoConfig.for_model(**stock)
    except StrictDataclassClassValidationError:
        return False
    return True


def _widths(shape: BlockShape) -> dict[str, int]:
    return {
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate_size,
    }


def _unequal(family: Family, shapes: Sequence[BlockShape]) -> dict[str, Any]:
    rows = [{field: getattr(shape, field) for field in BlockShape.__slots__} for shape in shapes]
    return {
        "model_type": _TYPE_PREFIX + family.name,
        BASE_KEY: family.name,
        SHAPES_KEY: rows,
        "per_layer_config": {str(index): _widths(shape) for index, shape in enumerate(shapes)},
        "architectures": ["SecateurForCausalLM"],
        "auto_map": {
            "AutoConfig": f"{MODULE}.SecateurConfig",
            "AutoModelForCausalLM": f"{MODULE}.SecateurForCausalLM",
        },
    }


def modeling_source(family: Family) -> str:
    """Return the source of `modeling_secateur.py`, which loads unequal blocks without this package."""
    from transformers import AutoConfig

    config = type(AutoConfig.for_model(family.name)).__name__
    classes = _TEMPLATE.format(
        config=config,
        architecture=family.architecture,
        model_type=_TYPE_PREFIX + family.name,
        shapes=SHAPES_KEY,
        norms=_norms(family),
    )
    body = inspect.getsource(reshape).replace(
        "from torch import Tensor, nn\n",
        f"from torch import Tensor, nn\nfrom transformers import {config}, {family.architecture}\n",
    )
    return body + "\n" + classes


def register() -> None:
    """Make the types of all families known to transformers' Auto classes, as the modelling file would."""
    import transformers

    for name in FAMILIES:
        family = FAMILIES[name]
        config = _config_class(type(transformers.AutoConfig.for_model(family.name)), family)
        transformers.AutoConfig.register(config.model_type, config, exist_ok=True)
        transformers.AutoModelForCausalLM.register(
            config, _model_class(getattr(transformers, family.architecture), config, family), exist_ok=True
        )


def _config_class(base: Any, family: Family) -> Any:
    def initialise(
        self: Any, per_layer_config: Any = None, hidden_size: int | None = None, **fields: Any
    ) -> None:
        base.__init__(self, **fields, **reshape.plain_width(fields))
        self.hidden_size = hidden_size or self.hidden_size

    def validate(self: Any) -> None:
        with reshape.plain_widths(self):
            base.validate(self)

    body = {
        "model_type": _TYPE_PREFIX + family.name,
        "__init__": initialise,
        "validate": validate,
        "__module__": __name__,
    }
    return type("SecateurConfig", (base,), body)


def _model_class(base: Any, config: Any, family: Family) -> Any:
    def initialise(self: Any, given: Any) -> None:
        base.__init__(self, given)
        reshape.reshape_blocks(self, getattr(given, SHAPES_KEY), _norms(family))

    return type(
        "SecateurForCausalLM",
        (base,),
        {"config_class": config, "__init__": initialise, "__module__": __name__},
    )


def _norms(family: Family) -> dict[str, tuple[str, ...]]:
    return {"attn": family.attn_norms, "ffn": family.ffn_norms}
