"""Ends a run in the middle, as a crash would."""

import pytest

from jaxord import train


def kill_in_step(config, workdir, at):
    """Runs until the step after `at`, and dies there."""
    real = train.make_train_step

    def make(*arguments, **settings):
        step = real(*arguments, **settings)

        def run(state, *rest):
            if int(state.step) == at:
                raise KeyboardInterrupt
            return step(state, *rest)

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_train_step", make)
        with pytest.raises(KeyboardInterrupt):
            train.run(config, workdir)
