"""Which methods go with which data set."""

FROM_SCRATCH = ("ce", "ce_l1", "coop", "l1", "numclip", "ordinalclip")
ALL = (*FROM_SCRATCH, "zero_shot")

PAIRS = {
    "quickstart": FROM_SCRATCH,  # no pretrained weights: zero_shot would guess
    "digits": FROM_SCRATCH,
    "folder": ALL,
    "hci": ALL,
    "aesthetics": ALL,
    "morph": ALL,
    "adience": ALL,
    "clap2015": ALL,
    "agedb": ALL,
    "utk": ALL,
    "cacd": ALL,
}
