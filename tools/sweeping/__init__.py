"""Libraries of the sweep: experiments, launchers, the journal and the search."""
