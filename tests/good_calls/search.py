"""Searches, and what they give."""

from tests.good_calls.given import mlp
from tests.good_calls.good import Good


def calls(of):
    return {
        "kl.LotteryTicketSearch": Good(
            {"model": of.plain, "schedule": [0.5], "workers": 0},
            compact="flag",
            rewind_to="count",
            workers="count",
            allocation="none",
            prunable="list text",
            pretrained="text",  # Layers are looked for in `search`.
            wrong_models="",
        ),
        "search": Good(
            {
                "x": of.x,
                "y": of.y,
                "validation_data": of.data,
                "epochs": 2,
                "verbose": 0,
            },
            call=of.searching.search,
            mask_epochs="above_0",
            mask_steps="positive",
            checkpoint="positive",
            eval_freq="positive",
            margin="from_0",
            test_data="none",
            callbacks="list",
            validation_split="0",
        ),
        "kl.Masks": Good({"arrays": {"hidden/kernel": [True, False]}}),
        "kl.Objective": Good({"name": "val_mine", "direction": "min"}),
        "kl.Run": Good({"directory": of.folder}),
        "kl.merge_runs": Good(
            {"runs": [of.run.directory], "directory": of.folder / "merged"}
        ),
        "kl.Ticket": Good(
            {"masks": of.masks, "weights": of.state},
            step="count",
            steps="count",
            learning_rate="from_0",
            architecture="text",
        ),
        "save": Good({"path": of.folder / "a.ticket"}, call=of.ticket.save),
        "transfer": Good({"model": mlp()}, call=of.ticket.transfer, wrong_models="all"),
        "kl.compare_transfer": Good(
            {
                "ticket": of.ticket,
                "model": of.plain,
                "x": of.x,
                "y": of.y,
                "validation_data": of.data,
                "epochs": 2,
                "workers": 0,
                "verbose": 0,
            },
            optimizer="none",
            eval_freq="positive",
            checkpoint="positive",
            workers="count",
            wrong_models="unbuilt uncompiled subclassed",
        ),
        "kl.load_ticket": Good({"path": of.saved}),
        "kl.results.verdict": Good(
            {"results": of.results}, margin="from_0", examples="positive"
        ),
    }
