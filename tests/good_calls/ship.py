"""From a ticket to a file."""

from tests.good_calls.good import Good


def calls(of):
    return {
        "kl.benchmark": Good(
            {"files": of.tflite, "rounds": 1, "seconds": 0.1},
            threads="positive",
            rounds="positive",
            seconds="above_0",
            threshold="real",
        ),
        "kl.deploy": Good(
            {
                "run": of.run.directory,
                "data": of.splits_of_run,
                "directory": of.folder / "out",
            },
            data="none",
            margin="from_0",
            objective="none",
            threads="positive",
            seconds="above_0",
        ),
        "kl.shrink": Good(
            {
                "model": of.plain,
                "data": of.classified,
                "directory": of.folder / "shrunk",
            },
            sparsity="0",
            data="none",
            granularity="none",
            repair="none",
            epochs="count",
            loss="none",
            tolerance="from_0",
            objective="none",
            prefer="none",
            threads="positive",
            seconds="above_0",
            wrong_models="unbuilt uncompiled subclassed",
        ),
        "kl.export.adapt_for_xnnpack": Good(
            {"model": of.pointwise}, wrong_models="unbuilt subclassed"
        ),
        "kl.export.check_file": Good({"path": of.klc}),
        "kl.export.explain_sparse": Good(
            {"model": of.pointwise}, wrong_models="unbuilt subclassed"
        ),
        "kl.export.to_c_array": Good(
            {"ticket_or_model_or_file": of.ticket, "path": of.folder / "a.c"},
            wrong_models="unbuilt",
        ),
        "kl.export.to_keras": Good(
            {
                "ticket_or_model": of.ticket,
                "path": of.folder / "a.keras",
                "dense": of.plain,
            },
            wrong_models="unbuilt",
        ),
        "kl.export.to_litert": Good(
            {"ticket_or_model": of.ticket, "path": of.folder / "a.tflite"},
            wrong_models="unbuilt",
        ),
        "kl.export.to_saved_model": Good(
            {"ticket_or_model": of.ticket, "path": of.folder / "a"},
            path="path",
            wrong_models="unbuilt",
        ),
        "kl.share_weights": Good(
            {"model": of.masked_model, "bits": 3}, bits="2", wrong_models="all"
        ),
        "kl.load_compressed": Good({"path": of.klc}),
        "kl.save_compressed": Good(
            {"model": of.masked, "path": of.folder / "b.klc"}, wrong_models="all"
        ),
    }
