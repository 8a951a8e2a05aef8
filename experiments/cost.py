"""Times, memory and parameters that ConOrd prints (Tables 21 to 25); ours are measured by
benchmarks, not by runs.

    python tools/bench_epoch.py --config=configs/spaq.py --methods=supcon,rnc,conord
        # Tables 21, 22 and 25
    python tools/bench_losses.py --losses=conord,rnc --sizes=32  # Tables 23 and 24

What was measured stands in experiments/performance.md. The papers' machine was an RTX 4090. Table
24 prints less memory for RnC than for ConOrd, which the text calls the lighter.
"""

from experiments.published import Table

CLAIMS = ()

PAPER = (
    Table(
        "ConOrd Table 21", "spaq:epoch_s", {}, {"supcon": "41.7", "rnc": "65.5", "conord": "31.8"}
    ),
    Table(
        "ConOrd Table 22", "clap2015:test_s", {}, {"NumCLIP": "5.15±0.42", "conord": "2.16±0.14"}
    ),
    Table("ConOrd Table 22", "bid:test_s", {}, {"LoDa": "5.63±0.31", "conord": "0.88±0.05"}),
    Table("ConOrd Table 22", "lsvq:test_s", {}, {"DOVER": "1222.36±9.04", "conord": "253.70±7.65"}),
    Table("ConOrd Table 23", "bid:loss_ms", {}, {"conord": "4.6", "rnc": "8.7", "QCN": "8.5"}),
    Table("ConOrd Table 24", "bid:loss_MB", {}, {"conord": "2.17", "rnc": "1.17", "QCN": "273.78"}),
    Table(
        "ConOrd Table 25",
        "bid:million_parameters",
        {},
        {"ReIQA": "47", "LQMamba": "86", "QCN": "30", "LoDa": "95", "conord": "86"},
    ),
)


def sweep(add):
    """No run: see above."""
