"""The networks of the lottery-ticket papers, each with the paper's recipe.

A new model is a function that builds a plain, uncompiled Keras model with explicit
layer names, its `Recipe`, and a line in `MODELS`.
"""

from keras_lottery import checks
from keras_lottery.papers.models.bert import (
    BERT_SMALL,
    BERT_SMALL_MLM,
    bert_small,
    bert_small_mlm,
)
from keras_lottery.papers.models.conv import (
    CONV_2,
    CONV_4,
    CONV_6,
    conv_2,
    conv_4,
    conv_6,
)
from keras_lottery.papers.models.deep import (
    MOBILENET_V2,
    RESNET_20,
    RESNET_56,
    VGG_11,
    VGG_19,
)
from keras_lottery.papers.models.lenet import (
    LENET_5,
    LENET_300_100,
    lenet_5,
    lenet_300_100,
)
from keras_lottery.papers.models.mobilenet import mobilenet, mobilenet_v2
from keras_lottery.papers.models.recipe import (
    Builder,
    Recipe,
    Steps,
    build,
    compile_model,
)
from keras_lottery.papers.models.residual import resnet, resnet_20, resnet_56
from keras_lottery.papers.models.vgg import vgg, vgg_11, vgg_19

__all__ = [
    "MODELS",
    "Recipe",
    "Steps",
    "bert_small",
    "bert_small_mlm",
    "build",
    "compile_model",
    "conv_2",
    "conv_4",
    "conv_6",
    "get",
    "lenet_5",
    "lenet_300_100",
    "mobilenet",
    "mobilenet_v2",
    "names",
    "recipe",
    "resnet",
    "resnet_20",
    "resnet_56",
    "vgg",
    "vgg_11",
    "vgg_19",
]

MODELS: dict[str, tuple[Builder, Recipe]] = {
    "lenet_300_100": (lenet_300_100, LENET_300_100),
    "lenet_5": (lenet_5, LENET_5),
    "conv_2": (conv_2, CONV_2),
    "conv_4": (conv_4, CONV_4),
    "conv_6": (conv_6, CONV_6),
    "resnet_20": (resnet_20, RESNET_20),
    "resnet_56": (resnet_56, RESNET_56),
    "vgg_11": (vgg_11, VGG_11),
    "vgg_19": (vgg_19, VGG_19),
    "mobilenet_v2": (mobilenet_v2, MOBILENET_V2),
    "bert_small": (bert_small, BERT_SMALL),
    "bert_small_mlm": (bert_small_mlm, BERT_SMALL_MLM),
}


def names() -> list[str]:
    """The names of the models.

    >>> names()
    ['lenet_300_100', 'lenet_5', 'conv_2', 'conv_4', 'conv_6', 'resnet_20', 'resnet_56',
     'vgg_11', 'vgg_19', 'mobilenet_v2', 'bert_small', 'bert_small_mlm']
    """
    return list(MODELS)


def get(model: str | Builder) -> Builder:
    """The function that builds a model, given by name or as the function itself.

    Raises:
        ValueError: if the name is unknown.

    >>> get("lenet_300_100")(input_shape=(8, 8, 1)).count_params()
    50610
    """
    return model if callable(model) else _entry(model)[0]


def recipe(model: str | Builder) -> Recipe:
    """The recipe of a model, given by name or as the function that builds it.

    Raises:
        ValueError: if the model is unknown.

    >>> recipe("conv_2").learning_rate
    0.0002
    """
    own = [name for name, (builder, _) in MODELS.items() if builder is model]
    return _entry(own[0] if own else model)[1]


def _entry(model: object) -> tuple[Builder, Recipe]:
    return MODELS[checks.choice("model", model, names())]
