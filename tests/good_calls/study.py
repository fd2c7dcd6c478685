"""What tickets and stored searches tell."""

import numpy as np

from tests.good_calls.good import Good


def calls(of):
    return {
        "kl.analysis.calibration_error": Good(
            {"probabilities": np.eye(3), "labels": np.arange(3)}, bins="positive"
        ),
        "kl.analysis.fast_gradient_sign": Good(
            {"model": of.masked, "data": of.data, "epsilon": 0.1},
            epsilon="from_0",
            wrong_models="uncompiled",
        ),
        "kl.analysis.instability": Good(
            {
                "model": of.masked,
                "state_a": of.state,
                "state_b": of.state,
                "data": of.data,
                "points": 2,
            },
            points="2",
            wrong_models="unbuilt uncompiled subclassed",
        ),
        "kl.analysis.interpolate": Good(
            {
                "model": of.masked,
                "state_a": of.state,
                "state_b": of.state,
                "data": of.data,
                "points": 2,
            },
            points="2",
            wrong_models="unbuilt uncompiled subclassed",
        ),
        "kl.analysis.layer_criticality": Good(
            {"model": of.masked, "checkpoints": {"start": of.state}, "data": of.data},
            replicates="0 2",
            wrong_models="unbuilt uncompiled subclassed",
        ),
        "kl.analysis.layer_densities": Good({"masks": of.masks}),
        "kl.analysis.mask_overlap": Good({"a": of.masks, "b": of.dense}),
        "kl.analysis.train_and_measure_instability": Good(
            {"tickets": of.ticket, "x": of.x, "y": of.y, **of.splits, "verbose": 0},
            pairs="positive",
            points="2",
        ),
        "kl.analysis.train_rewind_points": Good(
            {
                "model": of.plain,
                "x": of.x,
                "y": of.y,
                "at": [1],
                "epochs": 2,
                **of.splits,
            },
            wrong_models="unbuilt uncompiled subclassed",
            prunable="text list",
        ),
        "kl.analysis.weight_correlation": Good(
            {"before": of.state, "after": of.state, "p": 0.5}, p="", masks="none"
        ),
        "kl.analysis.weight_histograms": Good(
            {"initial": of.state, "final": of.state, "masks": of.masks, "bins": 2},
            bins="2",
        ),
        "kl.analysis.weight_movement": Good(
            {"initial": of.state, "final": of.state, "masks": of.masks}
        ),
        "kl.report.compare_runs": Good(
            {
                "directories": [of.run.directory, of.folder / "other_run"],
                "path": of.folder / "b.html",
                "figures": of.folder / "figures",
            },
            figures="text",
        ),
        "kl.report.write_report": Good(
            {
                "directory": of.run.directory,
                "path": of.folder / "a.html",
                "figures": of.folder / "figures",
            },
            directory="",
            figures="text",
        ),
        "kl.tensorboard.write_curves": Good(
            {"search": of.run, "directory": of.folder / "curves"}
        ),
        "kl.analysis.densities_by_level": Good({"search": of.run}),
        "kl.analysis.generalisation_gap": Good({"search": of.run, "on": "test"}),
        "kl.plot_files": Good({"table": of.measured, "path": of.folder / "a.png"}),
        "kl.plots.plot_search": Good(
            {"results": of.results, "path": of.folder / "b.png"}
        ),
    }
