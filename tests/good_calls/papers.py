"""The papers' networks."""

import keras_lottery as kl
from tests.good_calls.given import mlp
from tests.good_calls.good import Good


def calls(of):
    return {
        "kl.models.Recipe": Good(
            {**of.adam, "rates": {"hidden": 0.2}},
            learning_rate="above_0",
            steps="positive",
            optimizer="",
            rates="",
            prunable="text",
            eval_freq="positive",
            jit_compile="True",
            steps_per_execution="positive",
            momentum="0",
            weight_decay="none from_0",
            drops="list",
            warm_up="count",
        ),
        "kl.models.Steps": Good(
            {"learning_rate": 0.1},
            learning_rate="above_0",
            drops="list",
            warm_up="count",
            end="positive",
        ),
        "kl.models.build": Good(
            {
                "builder": kl.models.lenet_300_100,
                "recipe": of.recipe,
                "input_shape": (8, 8, 1),
                "classes": 10,
            },
            classes="positive",
        ),
        "kl.models.compile_model": Good(
            {"model": mlp(), "recipe": of.recipe},
            learning_rate="above_0",
            wrong_models="unbuilt subclassed",
        ),
        "kl.models.bert_small": Good(
            {"input_shape": (4,), "vocabulary": 20, "width": 32, "blocks": 1},
            classes="positive",
            blocks="positive",
            vocabulary="positive",
        ),
        "kl.models.lenet_300_100": Good({"input_shape": (2, 2, 1)}, classes="positive"),
        "kl.models.mobilenet": Good(
            {
                "stages": [(1, 2, 1, 1)],
                "stem": 2,
                "head": 2,
                "input_shape": (4, 4, 1),
            },
            stem="positive",
            head="positive",
            classes="positive",
        ),
        "kl.models.resnet": Good(
            {"depth": 8, "input_shape": (4, 4, 1), "width": 4},
            width="positive",
            classes="positive",
        ),
        "kl.models.vgg": Good(
            {"blocks": (1,), "width": 2, "input_shape": (4, 4, 1)},
            width="positive",
            classes="positive",
        ),
    }
